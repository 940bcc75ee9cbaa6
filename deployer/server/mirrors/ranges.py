"""Ranges of a file (RFC 9110, section 14): what a client asks for, what it is sent, and what an upstream sent."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

_NUMBER = r"([0-9]{1,15})"
"""More digits than any file has bytes are no number here; Python does not read thousands of them."""
_BEYOND = 10**15
"""A first byte that no file has: what ``bytes=-0`` asks for is never there."""
_RANGE = re.compile(rf"bytes=[ \t,]*(?:{_NUMBER}-(?:{_NUMBER})?|-{_NUMBER})[ \t,]*", re.IGNORECASE)
_CONTENT_RANGE = re.compile(rf"bytes[ \t]+{_NUMBER}-{_NUMBER}/{_NUMBER}", re.IGNORECASE)


class RangesUnsupported(Exception):
    """The upstream answered a request for a range with something else."""


@dataclass(frozen=True)
class Range:
    """One range of bytes: from ``first`` to ``last``, or to the end; a negative ``first`` counts from the end."""

    first: int
    last: int | None = None

    @classmethod
    def of(cls, header: str, *, if_range: str = "", validators: Collection[str] = ()) -> Self | None:
        """The range in a client's header ``Range``; None when the whole file is to be sent.

        That is so for other units, several ranges, invalid ones, and an ``If-Range`` that is none of ``validators``:
        the ETag and Last-Modified that the response will have. Only GET has ranges, HEAD has none.
        """
        found = _RANGE.fullmatch(header.strip())
        if found is None or (if_range and (if_range.startswith("W/") or if_range not in validators)):
            return None
        first, last, suffix = (None if number is None else int(number) for number in found.groups())
        if first is None:
            assert suffix is not None  # noqa: S101 - the expression has one of them
            return cls(-suffix) if suffix else cls(_BEYOND)
        return None if last is not None and last < first else cls(first, last)

    @property
    def header(self) -> str:
        """The value of ``Range`` that asks an upstream for it."""
        if self.first < 0:
            return f"bytes={self.first}"
        return f"bytes={self.first}-{'' if self.last is None else self.last}"


@dataclass(frozen=True)
class Answer:
    """What a client is sent: the bytes from ``start`` to ``stop``, with these headers besides those of the file."""

    status: HTTPStatus
    start: int
    stop: int
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, asked: Range | None, size: int) -> Self:
        """The answer for a file of ``size`` bytes: 200, 206, or 416 when the file has no byte of the range."""
        if asked is None:
            return cls._with(HTTPStatus.OK, 0, size)
        start = asked.first if asked.first >= 0 else max(size + asked.first, 0)
        stop = size if asked.last is None else min(asked.last + 1, size)
        if start >= stop:
            return cls._with(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, 0, f"bytes */{size}")
        return cls._with(HTTPStatus.PARTIAL_CONTENT, start, stop, f"bytes {start}-{stop - 1}/{size}")

    @classmethod
    def _with(cls, status: HTTPStatus, start: int, stop: int, place: str = "") -> Self:
        headers = [("Accept-Ranges", "bytes"), ("Content-Length", str(stop - start))]
        if place:
            headers.append(("Content-Range", place))
        return cls(status, start, stop, tuple(headers))


@dataclass(frozen=True)
class Piece:
    """``data`` from byte ``start`` of a file of ``total`` bytes."""

    start: int
    data: bytes
    total: int

    @classmethod
    def of(cls, status: int, header: str, data: bytes) -> Self:
        """The piece in an upstream's response with the header ``Content-Range``. Raises RangesUnsupported."""
        start, stop, total = content_range(status, header)
        if len(data) != stop - start:
            raise RangesUnsupported(f"Content-Range {header[:100]!a} and {len(data)} bytes")
        return cls(start=start, data=data, total=total)


def content_range(status: int, header: str) -> tuple[int, int, int]:
    """What an upstream sends, by status and ``Content-Range``: start, stop, bytes of the file.

    Raises RangesUnsupported for all but one range of a file whose size it says.
    """
    found = _CONTENT_RANGE.fullmatch(header.strip())
    if status == HTTPStatus.PARTIAL_CONTENT and found is not None:
        first, last, total = map(int, found.groups())
        if first <= last < total:
            return first, last + 1, total
    raise RangesUnsupported(f"status {status}, Content-Range {header[:100]!a}")
