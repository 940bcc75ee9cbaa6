"""Whether a server still runs, by its engine; and the error for one that does not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from deployer.errors import DeployerError, EngineError, NotReadyError
from deployer.host.background import meanwhile
from deployer.readiness.last_words import refusal
from deployer.secrets import mask
from deployer.spec import Container, State

if TYPE_CHECKING:
    from concurrent.futures import Future

    from deployer.engines.base import Engine

LOG_LINES = 20
_INSPECT_FIRST, _INSPECT_SLOWEST = 0.3, 2.0  # seconds; asking an engine costs a process


class Watch:
    """Ask the engine periodically, in the background, whether the server still runs."""

    def __init__(self, engine: Engine, name: str, *, mask: Callable[[str], str], clock: Callable[[], float]) -> None:
        self._engine = engine
        self._name = name
        self._mask = mask
        self._clock = clock
        self._pause = _INSPECT_FIRST
        self._next = clock() + self._pause
        self._pending: Future[Container | None] | None = None
        self._starts: set[str] = set()

    def alive(self) -> bool:
        """Whether the engine just reported it running; False when there is no new report. Raises as :meth:`death`."""
        if self._pending is None:
            if self._clock() >= self._next:
                self._pending = meanwhile(lambda: self._engine.inspect(self._name))
            return False
        if not self._pending.done():
            return False
        pending, self._pending = self._pending, None
        self._pause = min(self._pause * 1.5, _INSPECT_SLOWEST)
        self._next = self._clock() + self._pause
        try:
            return self._judge(pending.result())
        except EngineError:
            return False  # a failure of the engine says nothing about the server

    def _judge(self, container: Container | None) -> bool:
        if container is None:
            raise NotReadyError(
                f"another program removed {self._name} before it was ready",
                hint="deployer up",
            )
        if container.state in (State.RUNNING, State.RESTARTING):
            self._starts.add(container.started_at)
        deaths = max(0, len(self._starts) - 1) + (container.state is State.RESTARTING)
        # A restart policy may cure the first exit; a second one is a loop.
        ended = container.state in (State.STOPPED, State.LOST)
        if ended or deaths > 1:
            what = "stopped before it was ready" if ended else "restarts in a loop"
            raise self.death(container, what)
        return container.state is State.RUNNING

    def death(self, container: Container, what: str) -> DeployerError:
        """The error for a server that stopped: its own refusal, else a NotReadyError."""
        code = "" if container.exit_code is None else f" (exit code {container.exit_code})"
        reason = f": {self._mask(container.error)}" if container.error else ""
        lines = self.last_lines()
        if container.oom_killed:
            return NotReadyError(
                f"{self._name} is out of memory (OOM-killed){code}",
                hint="raise its limit: deployer up --set server.memory=512m",
                details=lines,
            )
        if refused := refusal(self._name, lines):
            return refused
        return NotReadyError(
            f"{self._name} {what}{code}{reason}",
            hint="read its log below; 'deployer up --keep' keeps it for 'deployer logs'",
            details=lines,
        )

    def says(self) -> str:
        """The engine's state of a server that is not running, in parentheses. Raises as :meth:`alive`."""
        try:
            container = self._engine.inspect(self._name)
        except EngineError as error:
            return f" ({self._engine.name}: {self._mask(error.message)})"
        running = self._judge(container)
        return "" if running or container is None else f" ({self._engine.name} says: {container.state})"

    def last_lines(self) -> tuple[str, ...]:
        """The end of the server's log, masked."""
        return last_lines(self._engine, self._name, mask=self._mask)


def last_lines(engine: Engine, name: str, *, mask: Callable[[str], str] = mask) -> tuple[str, ...]:
    """The end of the log of ``name``, masked; empty when the engine has no log."""
    try:
        lines = deque(engine.logs(name, tail=LOG_LINES), maxlen=LOG_LINES)
    except DeployerError:
        return ()
    return tuple(mask(line) for line in lines)


def lost(engine: Engine, name: str, *, mask: Callable[[str], str] = mask) -> DeployerError | None:
    """Why a server that was ready no longer answers, as far as its engine knows. Raises EngineError."""
    container = engine.inspect(name)
    if container is None or (container.state is State.RUNNING and not container.oom_killed):
        return None
    return Watch(engine, name, mask=mask, clock=time.monotonic).death(container, "stopped")
