"""Call an engine's command line: words in, an answer or one of our errors out."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable
from typing import Any

from deployer.engines.dialects import Dialect
from deployer.engines.failures import last_line, meant, silent, unavailable
from deployer.engines.remote import far
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ImageUnavailable
from deployer.host.runner import Completed, ProcessFailed, Runner
from deployer.protocol import parsed

BUILD_LINES = 12
"""How many of the last lines of a failed build are shown."""


class Client:
    """Runs the binary of the engine ``dialect`` with ``runner``."""

    def __init__(self, dialect: Dialect, runner: Runner) -> None:
        self._dialect = dialect
        self._runner = runner
        self._name = dialect.name

    def call(self, *words: str, stdin: bytes = b"", timeout: float = 30.0) -> Completed:
        """Run to the end, whatever the exit code. ``timeout`` in seconds."""
        return self._runner.run((self._name, *words), stdin=stdin, timeout=timeout)

    def checked(self, *words: str, timeout: float = 30.0) -> Completed:
        """As :meth:`call`. Raises the error that a failure means."""
        done = self.call(*words, timeout=timeout)
        if done.returncode:
            raise self.failure(done)
        return done

    def json(self, done: Completed) -> Any:
        """Parse the answer as JSON. Raises EngineError, also for extra lines of a wrapper on stdout."""
        try:
            return parsed(done.stdout)
        except ValueError:
            start = " ".join(done.stdout.split())[:80]
            raise EngineError(
                f"{self._name} {done.argv[1]} did not answer with JSON: {start!r}",
                hint=f"check that {shutil.which(self._name) or self._name} is the engine's own client",
            ) from None

    def failure(self, done: Completed) -> EngineError | ConflictError:
        """Translate a failed call into an error."""
        text = done.stderr.strip() or done.stdout.strip()
        cause = last_line(text)
        if known := meant(text, cause, dialect=self._dialect):
            return known
        if self._dialect.down.search(text):
            return silent(cause, dialect=self._dialect, address=far(os.environ.get(self._dialect.address, "")))
        return EngineError(f"{self._name} {done.argv[1]}: {cause}", hint="deployer doctor")

    def absent(self, done: Completed) -> bool:
        """Whether a call failed because its subject does not exist, as an engine that answers says."""
        if not done.returncode or not self._dialect.absent.search(done.stderr):
            return False
        return not isinstance(self.failure(done), EngineUnreachable)

    def container(self, name: str) -> dict[str, Any] | None:
        """The engine's answer about a container; ``None`` when absent."""
        done = self.call("container", "inspect", name)
        if self.absent(done):
            return None
        if done.returncode:
            raise self.failure(done)
        # The engine also matches id prefixes.
        return next((raw for raw in self.listed(done) if str(raw.get("Name", "")).lstrip("/") == name), None)

    def image(self, ref: str) -> dict[str, Any] | None:
        """The engine's answer about an image; ``None`` when absent."""
        done = self.call("image", "inspect", ref)
        if self.absent(done):
            return None
        if done.returncode:
            failure = self.failure(done)
            if isinstance(failure, ImageUnavailable):
                return None
            raise failure
        return next(iter(self.listed(done)), None)

    def listed(self, done: Completed) -> list[dict[str, Any]]:
        found = self.json(done)
        if not isinstance(found, list) or not all(isinstance(raw, dict) for raw in found):
            raise EngineError(f"{self._name} inspect did not answer with a JSON list", hint=f"upgrade {self._name}")
        return found

    def streamed(self, *words: str, on_line: Callable[[str], None], failed: str) -> None:
        """Run a build or a pull; ``on_line`` gets its output line by line.

        Raises ImageUnavailable; its message starts with ``failed``.
        """
        last: deque[str] = deque(maxlen=BUILD_LINES)
        chatter = self._dialect.build_chatter
        try:
            for line in self._runner.stream((self._name, *words)):
                said = line.strip()
                if said and not (chatter and chatter.search(said)):
                    last.append(line)
                    on_line(line)
        except ProcessFailed:
            cause = last_line("\n".join(last))
            raise unavailable(failed, cause, dialect=self._dialect, lines=tuple(last)) from None
