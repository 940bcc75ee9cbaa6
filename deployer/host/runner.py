"""The only place that starts a process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deployer.errors import EngineUnreachable
from deployer.host.interrupts import shielded

TIMEOUT = 30.0
"""Seconds that one call may take unless its caller knows better: an engine that hangs must not hang us."""

GRACE = 5.0
"""Seconds that a process has to end by itself when it is told to."""


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What one finished process said; undecodable bytes are replaced."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class Runner:
    """Runs lists of words; no shell is ever involved. ``env``: variables over this process's own."""

    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        # Messages are matched, so they have to come in the language that they are matched in.
        self._env = {**os.environ, "LC_ALL": "C", **(env or {})}

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = TIMEOUT,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run to the end, which an interrupt waits for; with ``env``, in exactly that environment.

        It is a process group of its own, for a terminal interrupts all of ours. Raises EngineUnreachable when the
        binary is missing, or after ``timeout`` seconds.
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

    def stream(self, argv: Sequence[str]) -> Iterator[str]:
        """Lines of stdout and stderr as they come, without line ends; the process ends with the iterator.

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


class ProcessFailed(Exception):
    """A streamed process ended with another exit code than 0."""

    def __init__(self, argv: Sequence[str], returncode: int) -> None:
        super().__init__(f"{argv[0]} ended with exit code {returncode}")
        self.returncode = returncode


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that is not waited for any more, also one that does not listen."""
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
def spawning(argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path) -> Iterator[int]:
    """Start a process that outlives us, in a session of its own, with exactly ``env``; its pid.

    It is to wait for a line on its standard input, which it gets at the end of the block; if the block fails it is
    killed, having done nothing, and if we are killed in it, that input just ends. An interrupt waits for the end of
    the block. What it says before it has a log of its own is appended to the file ``errors_to`` (0600). Raises
    EngineUnreachable.
    """
    with shielded():
        yield from _spawning(argv, env=env, errors_to=errors_to)


def _spawning(argv: Sequence[str], *, env: Mapping[str, str], errors_to: Path) -> Iterator[int]:
    log = os.open(errors_to, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            list(argv),
            env=dict(env),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise _missing(argv[0], error) from None
    finally:
        os.close(log)
    assert process.stdin is not None  # noqa: S101 - it is a pipe
    try:
        yield process.pid
    except BaseException:
        process.kill()
        process.wait()
        process.stdin.close()
        raise
    # Its exit is noticed by its mark, not by us as its parent: we are gone by then.
    process.returncode = 0
    # One that has ended already is found out by whoever waits for it.
    with suppress(BrokenPipeError), process.stdin as told:
        told.write(b"go\n")
