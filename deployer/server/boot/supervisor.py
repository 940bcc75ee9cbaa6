"""The supervisor of a server without a container engine: it writes the log, restarts the server, and ends with it.

Standard library only, one thread, and little memory: this process stays for as long as the server runs.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from deployer.protocol import FINAL, KEPT, OWN_PYTHON, SUPERVISOR, ExitCode, parse_size, parsed, told

SERVER = (*OWN_PYTHON, "-m", "deployer.server")
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a restart: doubled each time, reset once the server has run for STEADY seconds."""
STEADY = 60.0
MOST_FAILURES = 5
"""Quick exits in a row after which the supervisor gives up, unless the policy names another number."""
KILL_AFTER = 8.0
"""Seconds between SIGTERM and SIGKILL."""
LONGEST_LINE = 1 << 16
_STOPS = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1


class Log:
    """A log file, rotated by size (``server.log``, ``server.log.1``, …). Lines begin with a time (RFC 3339, UTC)."""

    def __init__(self, path: Path, *, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._open()

    def _open(self) -> None:
        # O_NONBLOCK: opening a FIFO must not wait for a reader.
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        status = os.fstat(descriptor)
        if not (stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "not a regular file of this user", str(self._path))
        os.fchmod(descriptor, 0o600)
        self._stream = os.fdopen(descriptor, "ab", buffering=0)
        self._size = os.fstat(descriptor).st_size

    def write(self, line: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        data = f"{now} {line}\n".encode("utf-8", "replace")
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._size += self._stream.write(data)
        except OSError:
            return  # a full disk must not end the server

    def _rotate(self) -> None:
        for number in range(self._max_files - 1, 0, -1):
            newer = self._numbered(number - 1)
            if newer.exists():
                newer.replace(self._numbered(number))
        self._path.unlink(missing_ok=True)
        self._stream.close()
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


@dataclass(frozen=True)
class Policy:
    """``no``, ``always``, ``unless-stopped``, ``on-failure`` or ``on-failure:N``, as container engines have them."""

    name: str
    restarts: int = MOST_FAILURES - 1
    """Most restarts in a row; a run of STEADY seconds resets the count."""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Raises ValueError."""
        name, _, count = text.partition(":")
        if name not in {"no", "always", "unless-stopped", "on-failure"} or (count and name != "on-failure"):
            raise ValueError(text)
        return cls(name, int(count)) if count else cls(name)

    def again(self, code: int, *, ends: int) -> bool:
        """Whether to restart after exit ``code``. ``ends``: quick exits in a row, this one included."""
        if self.name == "no" or code in FINAL or ends > self.restarts:
            return False
        return code != 0 or self.name in {"always", "unless-stopped"}


def _tied_to(parent: int) -> Callable[[], None]:
    """For the child, between fork and exec: be killed when the supervisor dies, however it dies (prctl(2))."""
    if sys.platform != "linux":
        return lambda: None
    from ctypes import CDLL

    prctl = CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the supervisor died before the call
            os._exit(1)

    return tie


def spawn(command: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a child that ends with this process, and whose output is read.

    The first child gets the public sockets of the server that this one replaces.
    """
    sockets = _sockets()
    try:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=_tied_to(os.getpid()),
            pass_fds=sockets,
        )
    finally:
        os.environ.pop(KEPT, None)
        for number in sockets:
            os.close(number)


def _sockets() -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in parsed(os.environ.get(KEPT, ""))["listeners"])
    except (ValueError, TypeError, KeyError):
        return ()


class Telling:
    """Servers that load before they have their options: the first one does while the command line plans."""

    def __init__(self, command: Sequence[str]) -> None:
        self.line = ""
        self._loading: subprocess.Popen[bytes] | None = spawn(command, stdin=subprocess.PIPE)

    def next(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """The server that is loading, else a new one, with its options: it begins."""
        child, self._loading = self._loading or spawn(command, stdin=subprocess.PIPE), None
        assert child.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError), child.stdin as stdin:
            stdin.write(self.line.encode())
        return child


class Supervisor:
    """Runs ``command``, and restarts it by ``policy``, until a signal comes."""

    def __init__(self, command: Sequence[str], log: Log, policy: Policy, told: Telling | None = None) -> None:
        """``told``: the server that is loading already, and what it and each later one gets on standard input."""
        self._command = tuple(command)
        self._told = told
        self._log = log
        self._policy = policy
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False

    def listen(self) -> None:
        """Install the signal handlers."""
        for number in _STOPS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGALRM, self._kill)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        if not self._stopping:
            self._stopping = True
            signal.setitimer(signal.ITIMER_REAL, KILL_AFTER)
            self._send(signal.SIGTERM)

    def _kill(self, _number: int, _frame: FrameType | None) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        if self._child is not None:
            self._child.send_signal(number)

    def run(self) -> int:
        """Run until the end; the exit code of the last run, 0 after a stop."""
        ends, pause = 0, FIRST_PAUSE
        while True:
            started = time.monotonic()
            code = self._once()
            if self._stopping:
                self._say(f"stopped, exit code {code}")
                return 0
            if time.monotonic() - started > STEADY:
                ends, pause = 0, FIRST_PAUSE
            ends += 1
            if not self._policy.again(code, ends=ends):
                self._say(f"exit code {code}, not restarted")
                return code
            self._say(f"exit code {code}, restarting in {pause:.1f} s")
            if self._stopped_within(pause):
                self._say("stopped")
                return 0
            pause = min(pause * 2, LONGEST_PAUSE)

    def _say(self, text: str) -> None:
        self._log.write(f"{SUPERVISOR}{text}")

    def _stopped_within(self, seconds: float) -> bool:
        """Wait; whether a signal ended the wait. Signals are blocked, so none is lost before the wait begins."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
        try:
            return self._stopping or signal.sigtimedwait(_STOPS, seconds) is not None
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)

    def _once(self) -> int:
        self._child = self._told.next(self._command) if self._told else spawn(self._command)
        self._say(f"started process {self._child.pid}")
        if self._stopping:  # the signal came before there was a child
            self._send(signal.SIGTERM)
        assert self._child.stdout is not None  # noqa: S101 - it is a pipe
        with self._child.stdout as output:
            while line := output.readline(LONGEST_LINE):
                self._log.write(line.decode("utf-8", "replace").rstrip("\r\n"))
        code = self._child.wait()
        return 128 - code if code < 0 else code


def supervise(options: argparse.Namespace) -> int:
    """Supervise ``python -m deployer.server serve …`` until a stop; the exit code."""
    os.umask(0o077)
    command = (*SERVER, *options.command)
    telling = None
    if options.when_told:
        telling = Telling(command)
        telling.line = sys.stdin.readline()
        if not telling.line:
            return 0  # the parent did not need this process, or was killed before it recorded it
        options = argparse.Namespace(**(vars(options) | told(telling.line)))
    try:
        policy, limit = Policy.parse(options.restart), parse_size(options.log_max_size)
        log = Log(Path(options.log), max_bytes=limit, max_files=options.log_max_files)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"deployer: can't supervise the server: {error}\n")
        return ExitCode.USAGE
    supervisor = Supervisor(command, log, policy, telling)
    supervisor.listen()
    return supervisor.run()
