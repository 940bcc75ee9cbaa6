"""Files that are not stored yet: downloaded once, and sent to every client that asks meanwhile.

One thread per file reads the answer to its end, even if clients disconnect, so that the file is kept. Each client reads
at its own speed from the spool file: memory does not grow with the size of the file, and a kill leaves no file behind.
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
MOST = 512
"""Downloads at a time: each holds a thread and up to three open files, of the 4,096 that the server has. They go on
when their clients have gone, so these do not limit them."""
_CREDENTIALS = ("Authorization", "X-Devpi-Auth", "Cookie")


class DownloadFailed(Exception):
    """The file did not come; the message says why."""


class TooManyDownloads(Exception):
    """MOST of them are under way."""


class Download:
    """One answer that is read into a spool file: its own, or else one below ``spool``, the directory for such files."""

    def __init__(self, spool: Path) -> None:
        self._directory = spool
        self._file: IO[bytes] | None = None
        self._changed = threading.Condition()
        self._size = 0
        self._begun = self._over = self._broken = False
        self._spools = True
        self._length: int | None = None
        self.error: BaseException | None = None
        """Why it failed."""
        self.status = 0
        self.headers: tuple[tuple[str, str], ...] = ()

    def read(self, answer: Callable[[], Any]) -> None:
        """Get the answer and read it to its end; runs in a thread of its own."""
        try:
            response = answer()
            self._spools = getattr(response, "spool", None) is None
            self._file = (
                tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - clients read on
                if self._spools
                else response.spool
            )
            with self._changed:
                self.status = response.status_code
                self.headers = tuple(response.headers.items())
                self._length = _length(self.headers)
                self._begun = True
                self._changed.notify_all()
            self._spool(response.app_iter)
        except BaseException as error:  # any error must wake the clients that wait
            threadlog.warn("a download failed: %s", error)
            self._broken, self.error = True, error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _spool(self, chunks: Any) -> None:
        assert self._file is not None  # noqa: S101 - opened before
        try:
            for chunk in chunks:
                if self._spools:
                    self._file.write(chunk)
                with self._changed:
                    self._size += len(chunk)
                    self._changed.notify_all()
        finally:
            if hasattr(chunks, "close"):
                chunks.close()

    def wait(self) -> None:
        """Wait for the end. Raises DownloadFailed."""
        with self._changed:
            self._changed.wait_for(lambda: self._over)
        if self.error is not None:
            raise DownloadFailed(str(self.error)) from self.error

    @property
    def failed(self) -> bool:
        """Whether there was no answer at all."""
        return self._over and not self._begun

    def wait_for_headers(self, seconds: float) -> bool:
        """Whether the response has begun, or has failed, within ``seconds``."""
        with self._changed:
            return self._changed.wait_for(lambda: self._begun or self._over, seconds)

    def body(self, may_wait: Callable[[], bool]) -> Iterator[bytes]:
        """The body, while it arrives; it ends early when the download fails, or when ``may_wait`` returns False."""
        position = 0
        while position != self._length:
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

    def join_request(self, request: Any, answer: Callable[[Any], Any]) -> Download:
        """The download of devpi for ``request``; ``answer`` begins one when there is none.

        Requests with other credentials get another download, because devpi checks credentials. Raises TooManyDownloads,
        and RuntimeError when no thread can be started.
        """
        key = (request.path_info, *(_digest(request.headers.get(name, "")) for name in _CREDENTIALS))
        return self.join(key, lambda: answer(request.copy_get()))[0]

    def join(self, key: tuple[str, ...], answer: Callable[[], Any]) -> tuple[Download, bool]:
        """The download with this ``key``, and whether this call began it, with ``answer``.

        Raises TooManyDownloads, and RuntimeError when no thread can be started.
        """
        with self._lock:
            if key in self._under_way:
                return self._under_way[key], False
            if len(self._under_way) >= MOST:
                raise TooManyDownloads
            download = Download(self._spool)
            begin = (key, download, answer)
            threading.Thread(target=self._read, args=begin, name=f"file {key[0]}", daemon=True).start()
            self._under_way[key] = download
            return download, True

    def _read(self, key: tuple[str, ...], download: Download, answer: Callable[[], Any]) -> None:
        try:
            download.read(answer)
        finally:
            with self._lock:
                del self._under_way[key]


def _length(headers: tuple[tuple[str, str], ...]) -> int | None:
    """The number of bytes that a client waits for: it need not wait until the file is kept."""
    found = next((value for name, value in headers if name.lower() == "content-length"), "")
    return int(found) if found.isdecimal() else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
