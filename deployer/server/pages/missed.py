"""What clients asked for in vain while the server was offline: what to fetch before the next time.

Pages of an offline server list only what is here. So a project without a page, or with an empty one, and a file that is
asked for by its address, from a lock file, are known to be missing; another version of a project is not.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path

from deployer.protocol import Missed, MissedIn, parsed
from deployer.server.secret_files import write_private

MOST = 1000
"""Limit of names: anybody can ask for anything. Those that came first are kept."""
LONGEST = 200
SOON = 1.0
"""Seconds until a change is written."""


class MissedRequests:
    """The counts, in memory and in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._due = False
        self._missed = _read(path)
        atexit.register(self._write_if_due)

    def project(self, index: str, name: str) -> None:
        """A project's page was asked for, and is not here."""
        self._count(index, "projects", name)

    def file(self, index: str, name: str) -> None:
        """A file was asked for, and is not here."""
        self._count(index, "files", name)

    def begin(self) -> None:
        """Forget everything: the server is going offline. Raises OSError."""
        with self._lock:
            self._missed = _nothing()
            write_private(self._path, json.dumps(self._missed), durable=False)

    def _count(self, index: str, kind: str, name: str) -> None:
        with self._lock:
            known = self._missed["indexes"].get(index, _empty())
            counts = known["files"] if kind == "files" else known["projects"]
            if name not in counts and (self._is_full or len(name) > LONGEST):
                self._missed["left_out"] += 1
            else:
                self._missed["indexes"][index] = known
                counts[name] = counts.get(name, 0) + 1
            if not self._due:
                self._due = True
                later = threading.Timer(SOON, self._write_if_due)
                later.daemon = True
                later.start()

    @property
    def _is_full(self) -> bool:
        return sum(len(of["projects"]) + len(of["files"]) for of in self._missed["indexes"].values()) >= MOST

    def _write_if_due(self) -> None:
        with self._lock, contextlib.suppress(OSError):  # a full disk: at the next request
            if self._due:
                self._due = False
                write_private(self._path, json.dumps(self._missed), durable=False)


def _read(path: Path) -> Missed:
    try:
        found = parsed(path.read_bytes())
        indexes = {
            str(name): MissedIn(projects=_counts(of["projects"]), files=_counts(of["files"]))
            for name, of in found["indexes"].items()
        }
        return Missed(since=str(found["since"]), indexes=indexes, left_out=int(found["left_out"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _nothing()


def _counts(found: dict[str, int]) -> dict[str, int]:
    return {str(name): int(number) for name, number in found.items()}


def _nothing() -> Missed:
    return Missed(since=datetime.now(UTC).isoformat(timespec="seconds"), indexes={}, left_out=0)


def _empty() -> MissedIn:
    return MissedIn(projects={}, files={})
