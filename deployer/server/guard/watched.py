"""The list of malicious releases, read again when its file has changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from devpi_server.log import threadlog

from deployer.server.guard.malicious import InvalidList, read
from deployer.server.guard.rules import Malicious

EVERY = 1.0
"""Seconds between two looks at the file. The command line has it read at once."""


class MaliciousFile:
    """The list in the file at ``path``. While a new one is invalid, the one before holds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self.latest = Malicious()
        """The list; any thread may read it."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when the list has changed, before the call of :meth:`refresh` ends."""
        self.refresh()

    def refresh(self) -> None:
        """Read the file, if it is another one than before."""
        with self._lock:
            seen = self._stat()
            if seen == self._seen:
                return
            try:
                found = read(self._path)
            except InvalidList as error:
                threadlog.error("%s", error)
                self._seen = seen
                return
            changed = found != self.latest
            self.latest = found
            if changed:
                self.on_change()
            self._seen = seen  # at the end: whoever comes meanwhile waits for the lock

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    def watch(self) -> None:
        """Look at the file from time to time; runs until the process ends."""
        while True:
            time.sleep(EVERY)
            self.refresh()
