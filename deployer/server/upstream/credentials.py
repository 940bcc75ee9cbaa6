"""The credentials of mirrors, read from a private file, so that devpi neither shows nor logs nor exports them.

The file is read again after each replacement. :mod:`deployer.server.devpi.mirror_auth` has mirrors send the headers;
``Indexes.may_get`` decides for each request whether its origin may receive them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from devpi_server.log import threadlog

from deployer.protocol import parsed

_Version = tuple[int, int, int]


class Credentials:
    """The file: a JSON object of mirror URLs and the Authorization header of each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._version: _Version | None = None
        self._headers: dict[str, str] = {}
        self.on_change: Callable[[frozenset[str]], None] = lambda urls: None
        """Called with the URLs whose credentials have changed or are gone."""

    def header(self, url: str) -> str | None:
        """The Authorization header for the upstream at ``url``; None when there is none."""
        return self.refresh().get(url.rstrip("/"))

    def refresh(self) -> dict[str, str]:
        """All headers by URL, after reading the file again if it was replaced."""
        version = self._version_now()
        if version == self._version:
            return self._headers
        with self._lock:
            if version != self._version:
                before, self._headers, self._version = self._headers, self._read(), version
                changed = {url for url, _ in before.items() ^ self._headers.items()}
                if changed:
                    self.on_change(frozenset(changed))
            return self._headers

    def _version_now(self) -> _Version | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _read(self) -> dict[str, str]:
        try:
            return parse(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            # The upstream then refuses the request, so nothing is served that should not be.
            threadlog.error("can't read the credentials of mirrors: %s", type(error).__name__)
            return {}


def parse(text: str) -> dict[str, str]:
    """Headers by URL without a trailing slash. Raises ValueError, whose message holds nothing of ``text``."""
    try:
        found = parsed(text)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(found, dict) or not all(
        isinstance(value, str) and value.isprintable() for value in found.values()
    ):
        raise ValueError("not an object of URLs and headers")
    return {str(url).rstrip("/"): value for url, value in found.items()}
