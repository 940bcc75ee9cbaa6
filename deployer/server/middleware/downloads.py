"""Files that are not here yet: downloaded once, sent to everybody who asks while they come.

One thread per file has devpi answer and reads that answer to its end, whoever hangs up, so that devpi stores the file.
What it reads goes to a spool without a name, from which each client is sent what is there already, at its own pace:
memory does not grow with the size of the file, and nothing is left behind by a kill.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from devpi_server.log import threadlog

PIECE = 64 * 1024
LOOK = 1.0
"""Seconds without a byte after which a client's place is looked at."""
_CREDENTIALS = ("Authorization", "X-Devpi-Auth", "Cookie")


class Download:
    """One answer of devpi that is being read into a spool. ``spool``: where such files may be made."""

    def __init__(self, spool: Path) -> None:
        self._directory = spool
        self._file: IO[bytes] | None = None
        self._changed = threading.Condition()
        self._size = 0
        self._begun = self._over = self._broken = False
        self.status = 0
        self.headers: tuple[tuple[str, str], ...] = ()

    def read(self, answer: Callable[[], Any]) -> None:
        """Have devpi answer, and read that to its end; in a thread of its own."""
        try:
            response = answer()
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - clients read on
            with self._changed:
                self.status = response.status_code
                self.headers = tuple(response.headers.items())
                self._begun = True
                self._changed.notify_all()
            self._spool(response.app_iter)
        except BaseException as error:  # whatever it was, nobody may wait for ever
            threadlog.warn("a download broke off: %s", error)
            self._broken = True
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _spool(self, pieces: Any) -> None:
        assert self._file is not None  # noqa: S101 - made before
        try:
            for piece in pieces:
                self._file.write(piece)
                with self._changed:
                    self._size += len(piece)
                    self._changed.notify_all()
        finally:
            if hasattr(pieces, "close"):
                pieces.close()

    @property
    def failed(self) -> bool:
        """Whether devpi gave no answer at all."""
        return self._over and not self._begun

    def wait_for_headers(self, seconds: float) -> bool:
        """Whether the answer has begun, or never will, within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._begun or self._over, seconds)

    def body(self, stay: Callable[[], bool]) -> Iterator[bytes]:
        """What has come and what still comes; it ends short where the download breaks off, or ``stay`` says no."""
        position = 0
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda at=position: self._size > at or self._over, LOOK)  # type: ignore[misc]
                there, over = self._size, self._over
            if not came:
                if stay():
                    continue
                return
            if position == there and over:
                self._end()
                return
            assert self._file is not None  # noqa: S101 - there is something in it
            # Not the file's own position: that is the writer's.
            piece = os.pread(self._file.fileno(), min(PIECE, there - position), position)
            position += len(piece)
            yield piece

    def _end(self) -> None:
        if self._broken and not any(name.lower() == "content-length" for name, _ in self.headers):
            # Without a promised length a short body looks like a whole one, unless the connection breaks.
            raise ConnectionAbortedError("the download broke off")


class Downloads:
    """All that is being downloaded."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, ...], Download] = {}

    def join(self, request: Any, answer: Callable[[Any], Any]) -> Download:
        """The download that answers ``request``; where there is none, ``answer`` begins one. Raises RuntimeError.

        Who gives other credentials gets a download of his own: devpi looks at them.
        """
        key = (request.path_info, *(_digest(request.headers.get(name, "")) for name in _CREDENTIALS))
        with self._lock:
            download = self._under_way.get(key)
            if download is None:
                download = Download(self._spool)
                begin = (key, download, lambda: answer(request.copy_get()))
                threading.Thread(target=self._read, args=begin, name=f"file {key[0]}", daemon=True).start()
                self._under_way[key] = download
            return download

    def _read(self, key: tuple[str, ...], download: Download, answer: Callable[[], Any]) -> None:
        try:
            download.read(answer)
        finally:
            with self._lock:
                del self._under_way[key]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
