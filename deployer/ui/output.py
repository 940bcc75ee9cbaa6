"""Output: data on stdout, steps and messages on stderr.

rich is imported here only, and only for a terminal; a pipe gets plain lines.
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
from typing import Any, TextIO, cast

from deployer.errors import DeployerError
from deployer.secrets import mask
from deployer.ui.streams import Messages, silence

SCHEMA = 1
WIDTH = 10


_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: window title, clipboard
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def strip_controls(text: str) -> str:
    """Remove terminal control sequences (ECMA-48) from untrusted text such as log lines and index titles."""
    return _CONTROLS.sub("", text)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a command: ``data`` for ``--json``, ``text`` for stdout.

    ``error``: a finding (drift, not ready) that sets the exit code. A command that fails raises instead.
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
    """Adds the name of the deployment to the commands in hints."""
    warned: list[str] = field(default_factory=list)
    """Warnings so far; the envelope contains them on success and on failure."""

    @property
    def silent(self) -> bool:
        return self.json or self.quiet

    @property
    def terminal(self) -> bool:
        return not self.silent and self.err.isatty() and os.environ.get("TERM") != "dumb"

    @property
    def color(self) -> bool:
        # https://no-color.org: any value but the empty one
        return self.terminal and not os.environ.get("NO_COLOR")

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if code and self.color else text

    def _print_message(self, title: str, text: str, *, code: str = "") -> None:
        self._write(self.err, self._paint(title.ljust(WIDTH), code) + mask(strip_controls(text)))

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        # Characters that the encoding lacks (LANG=C) are replaced.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
        stream.flush()

    def step(self, title: str, text: str) -> None:
        """Show a finished step: its title and its result."""
        if not self.silent:
            self._print_message(title, self.address(text), code="1")

    def note(self, text: str) -> None:
        """Show a line that continues the step above it."""
        if not self.silent:
            self._print_message("", self.address(text))

    def warn(self, text: str) -> None:
        """Show and record a warning; the command goes on."""
        text = self.address(text)
        self.warned.append(mask(text))
        if not self.silent:
            self._print_message("warning", text, code="33")

    @contextmanager
    def working(self, title: str, text: str) -> Iterator[Callable[[str], None]]:
        """Show a step in progress: a spinner with seconds and the last line of progress on a terminal, elsewhere one
        plain line at the first progress.

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
            tail = f"  {escape(mask(strip_controls(detail)).strip()[:room])}" if detail else ""
            head, rest = f"{title.ljust(WIDTH - 2)}", f"{escape(text)} {time.monotonic() - started:.0f} s"
            return f"[bold]{head}[/] {rest}[dim]{tail}[/]" if self.color else f"{head} {rest}{tail}"

        with console.status(line(""), spinner="dots") as status:
            yield lambda detail: status.update(line(detail))

    @contextmanager
    def live(self) -> Iterator[tuple[Callable[[str], None], Callable[[], int], Callable[[], int]]]:
        """Show text that replaces itself, on all of a terminal, which is restored at the end.

        Yields a function that shows a text, and those for the columns and lines there are.
        """
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        console = Console(file=self.out, no_color=True, highlight=False)
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as view:
            yield (
                lambda text: view.update(Text(strip_controls(text), no_wrap=True), refresh=True),
                lambda: console.width,
                lambda: console.height,
            )

    def _announcing(self, title: str, text: str) -> Callable[[str], None]:
        """Return a function that shows title and text once, at the first line of progress."""
        announced = self.silent

        def announce(_line: str) -> None:
            nonlocal announced
            if not announced:
                announced = True
                self._print_message(title, f"{text} …")

        return announce

    def finish(self, command: str, result: Result) -> None:
        """Print the result: the envelope with ``--json``, else warnings, text and error."""
        for warning in result.warnings:
            self.warn(warning)
        if self.json:
            self._envelope(command, result.error, data=dict(result.data))
            return
        if result.text:
            self._print(self._shown(result.text.rstrip("\n")))
        if result.error:
            self._print_error(result.error)

    def line(self, text: str) -> None:
        """Print one line of a streamed result. Raises BrokenPipeError when its reader is gone."""
        self._write(self.out, self._shown(text))

    def _shown(self, text: str) -> str:
        return strip_controls(text) if self.out.isatty() else text

    def fail(self, command: str, error: DeployerError) -> None:
        """Print a failure: the error, its details, the hint."""
        if self.json:
            self._envelope(command, error, data={})
        else:
            self._print_error(error)

    def trace(self, error: BaseException) -> None:
        """Print the traceback of a failure, with secrets masked."""
        from traceback import format_exception

        self._write(self.err, mask(strip_controls("".join(format_exception(error)).rstrip("\n"))))

    def _print_error(self, error: DeployerError) -> None:
        self._print_message("error", error.message, code="1;31")
        for detail in error.details:
            if not error.message.endswith(f": {detail.strip()}"):  # the message ends with this line
                self._print_message("", detail)
        if error.hint:
            self._print_message("hint", self.address(error.hint), code="36")

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
        """Print the result; a closed pipe does not change the exit code."""
        try:
            self._write(self.out, text)
        except BrokenPipeError:
            silence(self.out)
