"""The log of a supervised process: lines, each after its time, in files that are rotated by size."""

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
"""Seconds between two looks for more."""


def kept(log: Path, *, since: str = "", tail: int | None = None) -> list[str]:
    """What is in the files now, the oldest first; from the time ``since`` (as the lines have it), the last ``tail``."""
    lines = [line for line in _lines(log) if not (_STAMP.match(line) and line < since)]
    return [_said(line) for line in (lines if tail is None else lines[max(0, len(lines) - tail) :])]


def _lines(log: Path) -> list[str]:
    older = [path for path in log.parent.glob(log.name + ".*") if path.suffix[1:].isdecimal()]
    lines: list[str] = []
    for path in (*sorted(older, key=lambda path: -int(path.suffix[1:])), log):
        with contextlib.suppress(FileNotFoundError), _opened(path) as stream:  # rotated away in this moment
            lines += stream.read().removesuffix("\n").split("\n")
    return lines


def followed(log: Path, *, over: Callable[[], bool]) -> Iterator[str]:
    """Lines as they come, across rotations, until ``over`` says that there will be no more."""
    stream = _opened(log)
    try:
        stream.seek(0, os.SEEK_END)
        rest = ""
        while True:
            ended = over()
            newer = _newer(log, than=stream)
            # What is read now is all that there ever will be, if it is over or the file was rotated away.
            *lines, rest = (rest + stream.read()).split("\n")
            yield from map(_said, lines)
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
    """The file that has taken the place of ``than``; ``None`` while that is still the one, or there is none."""
    try:
        return None if log.stat().st_ino == os.fstat(than.fileno()).st_ino else _opened(log)
    except FileNotFoundError:
        return None


def _opened(path: Path) -> TextIO:
    # A line ends with "\n" and nothing else: what a program says may hold any other character that looks like an end.
    return path.open(encoding="utf-8", errors="replace", newline="\n")


def _said(line: str) -> str:
    """A line without its time; what a supervisor said that did not get as far as the log has none."""
    return _STAMP.sub("", line)
