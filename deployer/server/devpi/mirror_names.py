"""Names of the projects of mirrors, which devpi-server 6 keeps in one value for each mirror.

A commit that adds a name stores all of them again, and devpi keeps hundreds of commits in memory: while a thousand
projects were fetched for the first time, the server's memory grew by 100 MB. So names are added together, a while after
the files that they come with. devpi needs them for its lists of projects alone. Names that a kill has lost are found
by the stored links at the next start. devpi-server 7 has a key for each name, and adds it with the file.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import defaultdict
from typing import Any

from devpi_server.log import threadlog

from deployer.server.devpi.installed import inside

NAMES = "_deployer_mirror_names"
"""Attribute of devpi's ``xom`` with the :class:`MirrorNames`."""
PAUSE = 1.0
"""Seconds until names are added, and the same again for every thousand names of the mirror."""


class MirrorNames:
    """Names that are to be added. Thread-safe."""

    def __init__(self, xom: Any) -> None:
        self._xom = xom
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._pending: defaultdict[str, set[str]] = defaultdict(set)
        self._timer: threading.Timer | None = None
        self._most = 0
        """Names of the largest mirror that names were added to."""

    def note(self, index: str, project: str) -> None:
        """A file of a project of mirror ``index`` was stored."""
        with self._lock:
            self._pending[index].add(project)
            if self._timer is None:
                self._timer = threading.Timer(PAUSE * (1 + self._most / 1000), self.write)
                self._timer.daemon = True
                self._timer.start()

    def write(self) -> None:
        """Add the names that are pending, in one commit; none without. On a full disk they stay pending."""
        with self._writing:
            with self._lock:
                pending, self._pending = self._pending, defaultdict(set)
                if self._timer is not None:
                    self._timer.cancel()
                    self._timer = None
            if pending:
                try:
                    self._most = inside().add_names(self._xom, pending)
                except (OSError, sqlite3.Error) as error:
                    threadlog.warn("names of projects are not stored yet: %s", error)
                    with self._lock:
                        for index, names in pending.items():
                            self._pending[index] |= names

    def find(self) -> None:
        """Add the names that links are stored of, and that devpi's lists lack."""
        if found := inside().unlisted(self._xom):
            inside().add_names(self._xom, found)
