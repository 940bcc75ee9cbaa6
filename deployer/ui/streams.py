"""The standard streams: always open, and never the reason for a traceback or a rollback."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TextIO, cast

from deployer.errors import OutputError


def silence(stream: TextIO) -> None:
    """Redirect ``stream`` to the null device, so that later writes and the flush at exit do not fail."""
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class _Wrapped:
    """A text stream with other writes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Messages(_Wrapped):
    """A stream that ignores the loss of its reader (``| head``, a closed window), so that the work goes on."""

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


class Results(_Wrapped):
    """A stream that raises OutputError when it can't be written, as on a full disk; BrokenPipeError stays."""

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritten(error) from None

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritten(error) from None


def unwritten(error: OSError) -> OutputError:
    """The error of a result that can't be written to stdout."""
    return OutputError(
        f"stdout can't be written: {error.strerror or error}",
        hint="free disk space, or redirect stdout to another file, and run the same command again",
    )


def prepare() -> None:
    """Open closed standard streams on the null device, and guard the others. Call it once."""
    open_closed()
    sys.stdout, sys.stderr = cast(TextIO, Results(sys.stdout)), cast(TextIO, Messages(sys.stderr))


def open_closed() -> None:
    """Open closed standard streams on the null device.

    Call it first: the next file that is opened would get the number of a closed stream, and its messages.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
