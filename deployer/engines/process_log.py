"""The log of a supervised process: lines with a timestamp, in files that are rotated by size."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

_STAMP = re.compile(r"\A\d{4}-\d\d-\d\dT[\d:.]+Z ")
_PAUSE = 0.1
"""Seconds between two reads of a followed log."""


def read(
    log: Path, *, since: str = "", tail: int | None = None, over: Callable[[], bool] | None = None
) -> Iterator[str]:
    """Yield the lines of ``log`` and its rotated files, the oldest first, without their timestamps.

    ``since``: only lines from this time on (RFC 3339, UTC). ``tail``: only the last lines, so many. ``over``: follow
    the log until this returns true.
    """
    try:
        stream = _open(log)
    except FileNotFoundError:
        return
    # The current file is open before the older ones are read: no line is lost if it is rotated meanwhile.
    lines, rest = _split(_older(log, but=stream) + stream.read())
    if over is None and rest:
        lines, rest = [*lines, rest], ""
    lines = [line for line in lines if not (_STAMP.match(line) and line < since)]
    yield from map(_unstamped, lines if tail is None else lines[max(0, len(lines) - tail) :])
    if over is None:
        stream.close()
    else:
        yield from _follow(log, stream, rest, over)


def _older(log: Path, *, but: TextIO) -> str:
    """The text of the rotated files, the oldest first, except the file that ``but`` reads."""
    files = [path for path in log.parent.glob(log.name + ".*") if path.suffix[1:].isdecimal()]
    text = ""
    for path in sorted(files, key=lambda path: -int(path.suffix[1:])):
        with contextlib.suppress(FileNotFoundError), _open(path) as stream:  # deleted meanwhile
            text += "" if _is_same(stream, but) else stream.read()
    return text


def _follow(log: Path, stream: TextIO, rest: str, over: Callable[[], bool]) -> Iterator[str]:
    """Yield new lines of ``stream`` and of the files that replace it. ``rest``: the start of an unfinished line."""
    try:
        while True:
            ended = over()
            newer = _newer(log, than=stream)
            # This reads the rest if the process has ended or the file was rotated away.
            lines, rest = _split(rest + stream.read())
            yield from map(_unstamped, lines)
            if newer is not None:
                stream.close()
                stream = newer
            elif ended:
                return
            elif not lines:
                time.sleep(_PAUSE)
    finally:
        stream.close()


def _newer(log: Path, *, than: TextIO) -> TextIO | None:
    """Open the file that replaced ``than``; ``None`` while ``than`` is current or no file exists."""
    try:
        stream = _open(log)
    except FileNotFoundError:
        return None
    if not _is_same(stream, than):
        return stream
    stream.close()
    return None


def _is_same(one: TextIO, other: TextIO) -> bool:
    return os.path.sameopenfile(one.fileno(), other.fileno())


def _open(path: Path) -> TextIO:
    # Only "\n" ends a line: the output of a program may hold other line separators.
    return path.open(encoding="utf-8", errors="replace", newline="\n")


def _split(text: str) -> tuple[list[str], str]:
    """The finished lines of ``text``, and the unfinished last one."""
    *lines, rest = text.split("\n")
    return lines, rest


def _unstamped(line: str) -> str:
    """Strip the timestamp. What a supervisor writes before it opens its log has none."""
    return _STAMP.sub("", line)
