"""Files of canonical views as symbolic links, by which nginx sends what is here without asking anybody.

``<directory>/USER/INDEX/packages/PATH`` leads to the stored file whose original address has this path, or to what
belongs to it; ``hosts/HOST/PATH`` beside it to one at this host.
A link lives until its project's page changes, or any mirror is configured anew. After a start all are made anew.
Those of a mirror that not everybody may read are below ``read``, as in :mod:`deployer.server.guard.sendable`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from pathlib import Path

from deployer.server.guard.readers import READ

LIMIT = 50_000
"""Links; when there are more, all are removed."""
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_+!-][A-Za-z0-9_.:+!-]*)+")
_NAMES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


class CanonicalLinks:
    """All of them. Every method may be called from any thread."""

    def __init__(self, directory: Path) -> None:
        """``directory``: where nginx looks; its parent exists only where nginx runs."""
        self._directory = directory
        self._protected: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        self._made: dict[str, set[Path]] = {}
        self._count = 0
        self.mark = 0
        """The number of changes; to be read before what a link is made of."""

    def add(self, mirror: str, path: str, project: str, *, to: Path, mark: int) -> None:
        """Have ``path`` of a mirror's view lead to the file ``to``, unless something has changed since ``mark``."""
        if not _PLAIN.fullmatch(path) or not _NAMES.fullmatch(mirror) or not self._directory.parent.is_dir():
            return
        with self._lock, contextlib.suppress(OSError):
            link = (self._closed if mirror in self._protected else self._directory) / mirror / path[1:]
            if self.mark != mark or not to.exists():
                return
            if self._count >= LIMIT:
                self._clear()
            made = self._made.setdefault(project, set())
            link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(to, link.parent))
            self._count += link not in made
            made.add(link)

    @property
    def _closed(self) -> Path:
        return self._directory.parent / READ / self._directory.name

    def obey(self, protected: frozenset[str]) -> None:
        """Take over which mirrors not everybody may read."""
        with self._lock:
            if protected != self._protected:
                self._clear()
                self._protected = protected

    def forget(self, project: str) -> None:
        """Remove the links of a project (normalised name)."""
        with self._lock:
            self.mark += 1
            for link in self._made.pop(project, ()):
                self._count -= 1
                with contextlib.suppress(OSError):
                    link.unlink()

    def clear(self) -> None:
        """Remove all of them."""
        with self._lock:
            self._clear()

    def _clear(self) -> None:
        self.mark += 1
        self._made.clear()
        self._count = 0
        for directory in (self._directory, self._closed):
            shutil.rmtree(directory, ignore_errors=True)
