"""The parent of a server that runs without a container engine: keeps its log, restarts it, and takes it along.

Standard library only, and little of it: this process stays in memory for as long as the server runs.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from deployer.server.prepare import REFUSALS

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a restart: doubled each time, forgotten once the server ran for STEADY seconds."""
STEADY = 60.0
MOST_FAILURES = 5
KILL_AFTER = 8.0
"""Seconds that the server has to stop after a signal."""
_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_PR_SET_PDEATHSIG = 1


def size(text: str) -> int:
    """Bytes of ``10m``. Raises ValueError."""
    unit = text[-1:].lower()
    return int(text[:-1]) * _UNITS[unit] if unit in _UNITS else int(text)


@dataclass
class Log:
    """A file of lines, each after its time (RFC 3339, UTC), rotated by size: ``server.log``, ``server.log.1``, …"""

    path: Path
    max_bytes: int
    max_files: int
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._stream = os.fdopen(descriptor, "ab", buffering=0)

    def write(self, line: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = f"{now} {line}\n".encode("utf-8", "replace")
        with self._lock:
            if self._stream.tell() and self._stream.tell() + len(data) > self.max_bytes:
                self._rotate()
            try:
                self._stream.write(data)
            except OSError:
                return  # a full disk must not end the server that it belongs to

    def _rotate(self) -> None:
        self._stream.close()
        for number in range(self.max_files - 1, 0, -1):
            older = self.path if number == 1 else self.path.with_name(f"{self.path.name}.{number - 1}")
            if older.exists():
                older.replace(self.path.with_name(f"{self.path.name}.{number}"))
        if self.max_files == 1:
            self.path.unlink(missing_ok=True)
        self._open()


@dataclass(frozen=True)
class Policy:
    """``no``, ``always``, ``unless-stopped``, ``on-failure`` or ``on-failure:N``, as container engines have them."""

    name: str
    most: int = MOST_FAILURES

    @classmethod
    def parse(cls, text: str) -> Policy:
        name, _, count = text.partition(":")
        return cls(name, int(count) if count else MOST_FAILURES)

    def again(self, code: int, failures: int) -> bool:
        """Whether to start again after exit ``code`` and so many failures in a row."""
        if self.name == "no" or code in REFUSALS or failures > self.most:
            return False
        return code != 0 or self.name in {"always", "unless-stopped"}


def _die_with_parent() -> None:
    """In the child: be killed when the supervisor is, however it dies (prctl(2)). Nothing to do it with elsewhere."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Supervisor:
    """Runs ``command`` again and again, as ``policy`` says, until a signal comes."""

    def __init__(self, command: Sequence[str], log: Log, policy: Policy) -> None:
        self._command = tuple(command)
        self._log = log
        self._policy = policy
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()

    def stop(self, number: int, _frame: FrameType | None = None) -> None:
        self._stopping.set()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)
            threading.Thread(target=self._kill_late, args=(self._child,), daemon=True).start()

    @staticmethod
    def _kill_late(child: subprocess.Popen[bytes]) -> None:
        try:
            child.wait(KILL_AFTER)
        except subprocess.TimeoutExpired:
            child.kill()

    def run(self) -> int:
        """The exit code of the last run; 0 when it was stopped."""
        failures, pause = 0, FIRST_PAUSE
        while True:
            started = time.monotonic()
            code = self._once()
            if self._stopping.is_set():
                self._log.write(f"supervisor: stopped, exit code {code}")
                return 0
            if time.monotonic() - started > STEADY:
                failures, pause = 0, FIRST_PAUSE
            failures += 1
            if not self._policy.again(code, failures):
                self._log.write(f"supervisor: exit code {code}, not started again")
                return code
            self._log.write(f"supervisor: exit code {code}, starting again in {pause:.1f} s")
            if self._stopping.wait(pause):
                return 0
            pause = min(pause * 2, LONGEST_PAUSE)

    def _once(self) -> int:
        self._child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_die_with_parent,
        )
        if self._stopping.is_set():  # the signal came while there was no child to pass it on to
            self._child.terminate()
        assert self._child.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._child.stdout:
            self._log.write(line.decode("utf-8", "replace").rstrip("\r\n"))
        code = self._child.wait()
        return 128 - code if code < 0 else code


def supervise(options: argparse.Namespace, *, python: Callable[[], str] = lambda: sys.executable) -> int:
    """Supervise ``deployer.server serve …`` until it is stopped; the exit code."""
    os.umask(0o077)
    log = Log(Path(options.log), size(options.log_max_size), options.log_max_files)
    command = (python(), "-m", "deployer.server", *options.command)
    supervisor = Supervisor(command, log, Policy.parse(options.restart))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, supervisor.stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return supervisor.run()
