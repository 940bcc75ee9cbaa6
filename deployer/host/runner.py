"""Run processes. No other module of the command line starts one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import EngineUnreachable
from deployer.host.interrupts import passed_on, shielded

TIMEOUT = 30.0
"""Default timeout of a call, in seconds."""

GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """The result of a finished process. Undecodable bytes are replaced."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Runner:
    """Runs argument lists, without a shell. ``env``: variables that override those of this process."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        self._own = {**os.environ, **(env or {})}
        # Dialects match English messages.
        self._env = {**os.environ, "LC_ALL": "C", **(env or {})}

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = TIMEOUT,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Completed:
        """Run to the end; an interrupt waits for it. With ``env``, in exactly that environment.

        The process gets a process group of its own, since a terminal interrupts a whole group. Raises
        EngineUnreachable when the binary is missing, or after ``timeout`` seconds.
        """
        try:
            with shielded():
                done = subprocess.run(
                    list(argv),
                    input=stdin,
                    capture_output=True,
                    timeout=timeout,
                    env=self._env if env is None else dict(env),
                    check=False,
                    process_group=0,
                    cwd=cwd,
                )
        except subprocess.TimeoutExpired:
            raise EngineUnreachable(
                f"{' '.join(argv[:2])} did not answer within {timeout:.0f} s",
                hint=f"restart the engine behind {argv[0]}, or choose another with --engine process",
            ) from None
        except OSError as error:
            raise _missing(argv[0], error) from None
        return Completed(
            argv=tuple(argv),
            returncode=done.returncode,
            stdout=done.stdout.decode("utf-8", "replace"),
            stderr=done.stderr.decode("utf-8", "replace"),
        )

    def attached(self, argv: Sequence[str]) -> int:
        """Run with this process' streams, terminal and language, and return the exit code (128 + N after signal N).

        Interrupts of the terminal reach the process by themselves; others are passed on. Raises EngineUnreachable when
        the binary is missing.
        """
        try:
            process = subprocess.Popen(list(argv), env=self._own)
        except OSError as error:
            raise _missing(argv[0], error) from None
        with passed_on(process.pid):
            code = process.wait()
        return code if code >= 0 else 128 - code

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """Yield lines of stdout and stderr as they come, without line ends. The process ends with the iterator.

        Raises EngineUnreachable when the binary is missing, ProcessFailed after the last line.
        """
        try:
            process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._env
            )
        except OSError as error:
            raise _missing(argv[0], error) from None
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            with process.stdout as lines:
                for line in lines:
                    yield line.decode("utf-8", "replace").rstrip("\r\n")
            code = process.wait()
        finally:
            _end(process)
        if code:
            raise ProcessFailed(argv, code)

    @contextmanager
    def beside(self, argv: Sequence[str]) -> Iterator[Iterator[str]]:
        """Run beside a block, which gets the lines of stdout and stderr; the process ends with the block.

        Somebody must read the lines, or the process waits at some point. Raises EngineUnreachable when the binary is
        missing.
        """
        try:
            process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self._env
            )
        except OSError as error:
            raise _missing(argv[0], error) from None
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        try:
            yield (line.decode("utf-8", "replace").rstrip("\r\n") for line in process.stdout)
        finally:
            _end(process)


class ProcessFailed(Exception):
    """A streamed process failed."""

    def __init__(self, argv: Sequence[str], returncode: int) -> None:
        super().__init__(f"{argv[0]} ended with exit code {returncode}")
        self.returncode = returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process, and kill it after :data:`GRACE`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _missing(binary: str, error: OSError) -> EngineUnreachable:
    return EngineUnreachable(
        f"{binary} can't be started: {error.strerror}",
        hint=f"install {binary}, or choose another engine: --engine process needs none",
    )


@contextmanager
def telling(process: subprocess.Popen[bytes], line: str) -> Iterator[int]:
    """Let a process of :func:`spawned` outlive us: it gets ``line`` at the end of the block. Yields its pid.

    If the block fails, it is killed; if we are killed, its input ends without a line. An interrupt waits for the end of
    the block.
    """
    with shielded():
        yield from _telling(process, line)


def spawned(
    argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path, descriptors: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a process in its own session, with exactly ``env``, that waits for a line on its standard input.

    It must end when its input ends without a line. Output is appended to the file ``errors_to`` (mode 0600) until the
    process opens a log. It gets the ``descriptors`` under the same numbers. Raises EngineUnreachable.
    """
    log = os.open(errors_to, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
            pass_fds=tuple(descriptors),
        )
    except OSError as error:
        raise _missing(argv[0], error) from None
    finally:
        os.close(log)


def watcher(argv: Sequence[str], *, env: Mapping[str, str], title: str) -> int:
    """Start a process in its own session whose standard input ends when this job is killed; return its pid.

    What is killed with the job is a second process, ``title`` in lists of processes: it stays in the process group of
    this one and has its environment, by which CI runners find the processes of a job. It ends with the first one.
    Raises EngineUnreachable.
    """
    alive, writer = os.pipe()
    try:
        watching = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd="/",
            stdin=alive,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        member = subprocess.Popen(
            ("/bin/sh", "-c", "read _", title),
            cwd="/",
            stdin=watching.stdout,
            stdout=writer,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise _missing(argv[0], error) from None
    finally:
        os.close(alive)
        os.close(writer)
    if watching.stdout is not None:
        watching.stdout.close()
    watching.returncode = member.returncode = 0  # they outlive us, so Popen must not wait for them or warn about them
    return watching.pid


def _telling(process: subprocess.Popen[bytes], line: str) -> Iterator[int]:
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    try:
        yield process.pid
    except BaseException:
        process.kill()
        process.wait()
        process.stdin.close()
        raise
    # It outlives us, so Popen must not wait for it or warn about it.
    process.returncode = 0
    # The caller notices a process that has already ended.
    with suppress(BrokenPipeError), process.stdin as told:
        told.write(line.encode() + b"\n")
