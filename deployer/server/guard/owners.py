"""Which index served a project of an ordered index first: another base must not take the name over without notice.

``<serverdir>/.deployer/owners/USER/INDEX/PROJECT`` has the name of that base, or of the ordered index itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from devpi_server.log import threadlog

from deployer.server.secret_files import write_cached

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


class Owners:
    """The records below ``directory``. Every method may be called from any thread; projects by normalised name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, index: str, project: str) -> Path | None:
        parts = index.split("/")
        plain = len(parts) == 2 and not {"", ".", ".."} & set(parts) and _PLAIN.fullmatch(project)
        return self._directory.joinpath(*parts, project) if plain else None

    def first(self, index: str, project: str) -> str | None:
        """The index that served the project first; None where that is not known."""
        path = self._path(index, project)
        with contextlib.suppress(OSError, UnicodeError):
            return None if path is None else path.read_text(encoding="utf-8").strip() or None
        return None

    def note(self, index: str, project: str, owner: str) -> None:
        """Record the index that serves the project."""
        path = self._path(index, project)
        if path is None or self.first(index, project) == owner:
            return
        try:
            write_cached(path, f"{owner}\n".encode())
        except OSError as error:  # a full disk: clients get the page anyway
            threadlog.warn("%s: can't record that %s serves %s: %s", index, owner, project, error)

    def projects(self, index: str) -> list[str]:
        """The projects that are recorded, sorted."""
        path = self._path(index, "x")
        with contextlib.suppress(OSError):
            names = [] if path is None else (entry.name for entry in os.scandir(path.parent))
            return sorted(filter(_PLAIN.fullmatch, names))
        return []

    def forget(self, index: str, projects: Collection[str] | None = None) -> None:
        """Forget who served these projects first, None for all. Raises OSError."""
        for project in self.projects(index) if projects is None else projects:
            path = self._path(index, project)
            if path is not None:
                path.unlink(missing_ok=True)

    def keep_only(self, indexes: Collection[str]) -> None:
        """Forget the records of indexes that are no more."""
        for path in self._directory.glob("*/*"):
            if "/".join(path.parts[-2:]) not in indexes:
                shutil.rmtree(path, ignore_errors=True)
