"""What a person or a program sees: data on stdout, steps and messages on stderr.

The only user of rich, and only on a terminal: a pipe gets plain lines and pays for no import.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO, cast

from deployer.errors import DeployerError
from deployer.secrets import mask

SCHEMA = 1
WIDTH = 10


_OBEYED = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # colours, moves of the cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # the window's title, the clipboard
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def tame(text: str) -> str:
    """``text`` without what a terminal obeys instead of showing it (ECMA-48): others write log lines, and titles of
    indexes."""
    return _OBEYED.sub("", text)


def silence(stream: TextIO) -> None:
    """Let all that is still written to ``stream``, and what is flushed at exit, go nowhere."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Messages:
    """A stream that may lose its reader (``| head``, a window that is closed): the work is not ended by that."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            silence(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            silence(self._stream)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a command has to say: ``data`` for ``--json``, ``text`` for stdout.

    ``error``: what the command found (drift, not ready), which also makes the exit code. A command that could not do
    its work raises instead.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    warnings: tuple[str, ...] = ()
    error: DeployerError | None = None

    @property
    def exit_code(self) -> int:
        return self.error.exit_code if self.error else 0


@dataclass
class UI:
    """Steps, progress and results of one command."""

    json: bool = False
    quiet: bool = False
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: cast(TextIO, Messages(sys.stderr)))
    address: Callable[[str], str] = str
    """Puts the name of the deployment into the commands that are advised, where it has one of its own."""
    warned: list[str] = field(default_factory=list)
    """What was warned about so far: the envelope carries it, whether the command succeeds or fails."""

    @property
    def silent(self) -> bool:
        return self.json or self.quiet

    @property
    def terminal(self) -> bool:
        return not self.silent and self.err.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def color(self) -> bool:
        # https://no-color.org: any value that is not empty
        return self.terminal and not os.environ.get("NO_COLOR")

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.color else text

    def _say(self, title: str, text: str, *, code: str = "") -> None:
        self._write(self.err, self._paint(title.ljust(WIDTH), code) + mask(tame(text)))

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        # A character that the terminal can't show (LANG=C) is replaced, never a reason to fail.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()

    def step(self, title: str, text: str) -> None:
        """One finished step: what it was about, and how it went."""
        if not self.silent:
            self._say(title, self.address(text), code="1")

    def note(self, text: str) -> None:
        """A line that continues the step above it."""
        if not self.silent:
            self._say("", self.address(text))

    def warn(self, text: str) -> None:
        """Something that the user should know, though the command goes on."""
        text = self.address(text)
        self.warned.append(mask(text))
        if not self.silent:
            self._say("warning", text, code="33")

    @contextmanager
    def working(self, title: str, text: str) -> Iterator[Callable[[str], None]]:
        """A step that takes a while: a spinner with seconds and the last line of progress on a terminal; elsewhere
        nothing, unless there is progress: then a plain line that says what takes so long.

        Yields a function that takes a line of progress.
        """
        if not self.terminal:
            yield self._announcing(title, text)
            return
        from rich.console import Console
        from rich.markup import escape

        started = time.monotonic()
        console = Console(file=self.err, no_color=not self.color, highlight=False)

        def line(detail: str) -> str:
            room = max(20, console.width - WIDTH - len(text) - 16)
            tail = f"  {escape(mask(tame(detail)).strip()[:room])}" if detail else ""
            head, rest = f"{title.ljust(WIDTH - 2)}", f"{escape(text)} {time.monotonic() - started:.0f} s"
            return f"[bold]{head}[/] {rest}[dim]{tail}[/]" if self.color else f"{head} {rest}{tail}"

        with console.status(line(""), spinner="dots") as status:
            yield lambda detail: status.update(line(detail))

    def _announcing(self, title: str, text: str) -> Callable[[str], None]:
        """Say once, at the first line of progress, what is going on."""
        told = self.silent

        def announce(_line: str) -> None:
            nonlocal told
            if not told:
                told = True
                self._say(title, f"{text} …")

        return announce

    def finish(self, command: str, result: Result) -> None:
        """Print the result: the envelope with ``--json``, else warnings, the text, and what was found."""
        for warning in result.warnings:
            self.warn(warning)
        if self.json:
            self._envelope(command, result.error, data=dict(result.data))
            return
        if result.text:
            self._print(self._shown(result.text.rstrip("\n")))
        if result.error:
            self._tell(result.error)

    def line(self, text: str) -> None:
        """Print one line of a result that comes piece by piece. Raises BrokenPipeError when its reader is gone."""
        self._write(self.out, self._shown(text))

    def _shown(self, text: str) -> str:
        return tame(text) if self.out.isatty() else text

    def fail(self, command: str, error: DeployerError) -> None:
        """Print a failure: one line of cause, then what helps to diagnose, then one line of cure."""
        if self.json:
            self._envelope(command, error, data={})
        else:
            self._tell(error)

    def trace(self, error: BaseException) -> None:
        """Print where a failure came from, secrets blanked."""
        from traceback import format_exception

        self._write(self.err, mask(tame("".join(format_exception(error)).rstrip("\n"))))

    def _tell(self, error: DeployerError) -> None:
        self._say("error", error.message, code="1;31")
        for detail in error.details:
            if not error.message.endswith(f": {detail.strip()}"):  # an engine's last line is the cause already
                self._say("", detail)
        if error.hint:
            self._say("hint", self.address(error.hint), code="36")

    def _envelope(self, command: str, error: DeployerError | None, *, data: Mapping[str, Any]) -> None:
        envelope: dict[str, Any] = {
            "schema": SCHEMA,
            "command": command,
            "ok": error is None,
            "data": data,
            "warnings": self.warned,
            "error": None,
        }
        if error is not None:
            envelope["error"] = {
                "code": error.code,
                "message": mask(error.message),
                "hint": mask(self.address(error.hint)),
                "retryable": error.retryable,
                **({"details": [mask(line) for line in error.details]} if error.details else {}),
            }
        self._print(json.dumps(envelope, default=str))

    def _print(self, text: str) -> None:
        """The result, after the work: that nobody reads it does not make another exit code of it."""
        try:
            self._write(self.out, text)
        except BrokenPipeError:
            silence(self.out)
