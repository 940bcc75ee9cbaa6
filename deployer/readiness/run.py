"""The state of one wait: time taken, time left, stages passed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from deployer.errors import NotReadyError
from deployer.readiness.probe import ask
from deployer.readiness.watch import Watch

if TYPE_CHECKING:
    from deployer.devpi.api import DevpiApi

T = TypeVar("T")

STAGES = ("process", "port", "api", "ours", "login", "index")
POLL = 0.005
"""Seconds between two requests: short, because this delays ``up``."""
_READ_FIRST, _READ_SLOWEST = 1.0, 8.0  # seconds; a frozen server must not hide its own death for long


class Run:
    """The wait for the server at ``url``, until ``deadline`` from now."""

    def __init__(
        self,
        url: str,
        deadline: timedelta,
        *,
        watch: Watch,
        on_stage: Callable[[str, float], None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._url = url
        self._limit = deadline.total_seconds()
        self._watch = watch
        self._on_stage = on_stage
        self._clock = clock
        self._sleep = sleep
        self._start = clock()
        self.timings: dict[str, float] = {}

    def left(self) -> float:
        """Seconds until the deadline; may be negative."""
        return self._start + self._limit - self._clock()

    def passed(self, stage: str) -> None:
        """Record a stage and report it, once."""
        if stage not in self.timings:
            self.timings[stage] = self._clock() - self._start
            self._on_stage(stage, self.timings[stage])

    def until_it_speaks(self) -> None:
        """The stages process, port and api. Raises NotReadyError."""
        patience = _READ_FIRST
        seen = nothing = "connection refused"
        while self.left() > 0:
            given = min(patience, self.left())
            try:
                answer = ask(self._url, given, on_connect=self._connected)
            except TimeoutError:
                if given == patience or seen == nothing:  # else the deadline cut it short, which tells nothing new
                    seen = "it accepts connections but does not answer"
                patience = min(patience * 2, _READ_SLOWEST)
            except OSError as error:
                if "port" in self.timings:
                    seen = f"it accepts connections but does not answer ({error})"
            else:
                if answer.devpi:
                    self.passed("api")
                    return
                seen = f"the answer is not devpi's ({answer.text})"
                if answer.status == 200:  # a devpi that is still starting never says that all is well
                    raise NotReadyError(
                        f"{self._url} is not ready: {seen}",
                        hint="another program may use this port: choose another with --port",
                    )
            if self._watch.alive():
                self.passed("process")
            self._sleep(POLL)
        raise self._late(f"{self._url} is not ready: {seen}")

    def insist(self, api: DevpiApi, call: Callable[[], T]) -> T:
        """Retry ``call`` until it answers. Raises errors that are not retryable, and NotReadyError at the deadline."""
        whole = api.timeout
        while True:
            api.timeout = max(0.1, min(whole, self.left()))
            try:
                return call()
            except NotReadyError as error:
                if not error.retryable:
                    raise
                if self.left() <= 0:
                    raise self._late(error.message) from None
            finally:
                api.timeout = whole
            self._watch.alive()
            self._sleep(POLL)

    def _connected(self) -> None:
        self.passed("process")
        self.passed("port")

    def _late(self, cause: str) -> NotReadyError:
        waited = self._clock() - self._start
        after = next((stage for stage in reversed(STAGES) if stage in self.timings), "")
        at = STAGES[STAGES.index(after) + 1] if after else STAGES[0]
        return NotReadyError(
            f"{cause}, after {waited:.1f} s, at stage {at}{self._watch.says()}",
            hint="deployer logs; on a slow host, give a longer --timeout",
            details=self._watch.last_lines(),
        )
