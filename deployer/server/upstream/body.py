"""A body of an upstream, decoded piece by piece within bounds.

httpx decodes a whole answer: 411 kB of gzip became 400 MB of memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

LARGEST_PAGE = 32 << 20
"""Bytes of a project's page, decoded as well as encoded. The largest on the public index has about ten million."""
LARGEST_LIST = 128 << 20
"""The same of a list of all names, which is asked for where the profile says ``project_list: true``."""
LARGEST_OTHER = 64 << 10
"""The same of a body that nobody reads: of an error or a redirect."""
LARGEST_FILE = 4 << 30
"""Bytes of a file."""
_STEP = 64 << 10
"""Most bytes that are decoded at once: a few bytes of gzip may stand for a million."""
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""zlib's ``wbits`` for each encoding."""


class InvalidBody(Exception):
    """The body is too large, or not encoded as its header says."""


class Body:
    """One body with at most ``most`` bytes. Raises InvalidBody for an unknown encoding.

    As a context manager, it lets go of what came when an error ends it: the error's traceback keeps the body itself,
    for as long as anybody keeps the error.
    """

    def __init__(self, encoding: str, *, most: int) -> None:
        name = encoding.strip().lower()
        if name not in ("", "identity", *_WINDOWS):
            raise InvalidBody(f"unknown encoding {name!r}")
        self._most = most
        self._unpack: Any = zlib.decompressobj(_WINDOWS[name]) if name in _WINDOWS else None
        self._encoded = 0
        self.decoded = bytearray()

    def __enter__(self) -> Body:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.decoded = bytearray()

    def feed(self, piece: bytes) -> Iterator[int]:
        """Add a piece as it came, step by step; the bytes that are decoded after each. Raises InvalidBody."""
        self._encoded += len(piece)
        self._check(self._encoded)
        if self._unpack is None:
            yield self._add(piece)
            return
        while True:
            try:
                plain = self._unpack.decompress(piece, _STEP)
            except zlib.error as error:
                raise InvalidBody(f"invalid encoding: {error}") from None
            piece = self._unpack.unconsumed_tail
            yield self._add(plain)
            if not piece and len(plain) < _STEP:  # else zlib may still hold some
                return

    def _add(self, plain: bytes) -> int:
        self._check(len(self.decoded) + len(plain))
        self.decoded += plain
        return len(self.decoded)

    def _check(self, size: int) -> None:
        if size > self._most:
            raise InvalidBody(f"more than {self._most} bytes")

    @property
    def is_whole(self) -> bool:
        """Whether an encoded body has come to its end."""
        return self._unpack is None or self._unpack.eof or not self._encoded
