"""Files that are not stored yet: downloaded once, and sent to every client that asks meanwhile.

One thread per file reads devpi's response to its end, even if clients disconnect, so that devpi stores the file. It
writes to a spool file without a name, from which each client reads at its own speed: memory does not grow with the size
of the file, and a kill leaves no file behind.
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

CHUNK = 64 * 1024
CHECK_EVERY = 1.0
"""Seconds without a byte after which a client's permit is checked."""
_CREDENTIALS = ("Authorization", "X-Devpi-Auth", "Cookie")


class Download:
    """One response of devpi that is read into a spool file. ``spool``: the directory for such files."""

    def __init__(self, spool: Path) -> None:
        self._directory = spool
        self._file: IO[bytes] | None = None
        self._changed = threading.Condition()
        self._size = 0
        self._begun = self._over = self._broken = False
        self.status = 0
        self.headers: tuple[tuple[str, str], ...] = ()

    def read(self, answer: Callable[[], Any]) -> None:
        """Get devpi's response and read it to its end; runs in a thread of its own."""
        try:
            response = answer()
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - clients read on
            with self._changed:
                self.status = response.status_code
                self.headers = tuple(response.headers.items())
                self._begun = True
                self._changed.notify_all()
            self._spool(response.app_iter)
        except BaseException as error:  # any error must wake the clients that wait
            threadlog.warn("a download failed: %s", error)
            self._broken = True
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _spool(self, chunks: Any) -> None:
        assert self._file is not None  # noqa: S101 - opened before
        try:
            for chunk in chunks:
                self._file.write(chunk)
                with self._changed:
                    self._size += len(chunk)
                    self._changed.notify_all()
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    @property
    def failed(self) -> bool:
        """Whether devpi gave no response at all."""
        return self._over and not self._begun

    def wait_for_headers(self, seconds: float) -> bool:
        """Whether the response has begun, or has failed, within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._begun or self._over, seconds)

    def body(self, may_wait: Callable[[], bool]) -> Iterator[bytes]:
        """The body, while it arrives; it ends early when the download fails, or when ``may_wait`` returns False."""
        position = 0
        while True:
            with self._changed:
                came = self._changed.wait_for(lambda at=position: self._size > at or self._over, CHECK_EVERY)  # type: ignore[misc]
                there, over = self._size, self._over
            if not came:
                if may_wait():
                    continue
                return
            if position == there and over:
                self._end()
                return
            assert self._file is not None  # noqa: S101 - it has content
            # pread: the file's position belongs to the writer.
            chunk = os.pread(self._file.fileno(), min(CHUNK, there - position), position)
            position += len(chunk)
            yield chunk

    def _end(self) -> None:
        if self._broken and not any(name.lower() == "content-length" for name, _ in self.headers):
            # Without a Content-Length only a broken connection tells the client that the body is incomplete.
            raise ConnectionAbortedError("the download failed")


class Downloads:
    """All downloads under way. ``spool``: the directory for spool files."""

    def __init__(self, spool: Path) -> None:
        self._spool = spool
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, ...], Download] = {}

    def join(self, request: Any, answer: Callable[[Any], Any]) -> Download:
        """The download for ``request``; ``answer`` begins one when there is none.

        Requests with other credentials get another download, because devpi checks credentials. Raises RuntimeError when
        no thread can be started.
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
