"""Which index served a project of an ordered index first: another base must not take the name over without notice.

``<serverdir>/.deployer/owners/USER/INDEX/PROJECT`` has the name of that base, or of the ordered index itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from devpi_server.log import threadlog

from deployer.server.secret_files import write_cached

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Listing:
    """All records as one text, for the other members of a cluster. ``name``: another one for another text."""

    text: str

    @property
    def name(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:32]


class Owners:
    """The records below ``directory``. Every method may be called from any thread; projects by normalised name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._listing: Listing | None = None  # None: to be made anew
        self._lock = threading.Lock()
        self.on_note: Callable[[str, str, str], None] = lambda index, project, owner: None
        """Called with a new record."""

    @property
    def listing(self) -> Listing:
        """What all records are."""
        with self._lock:
            if self._listing is None:
                self._listing = Listing(listed(self._directory))
            return self._listing

    def take(self, text: str, *, keeping: Collection[tuple[str, str, str]]) -> set[str]:
        """Have the records of another member, and of one's own those to keep; the projects that are changed.

        Raises ValueError.
        """
        wanted = {**read(text), **{(index, project): owner for index, project, owner in keeping}}
        found = read(listed(self._directory))
        for (index, project), owner in wanted.items():
            if found.get((index, project)) != owner:
                self._write(index, project, owner)
        for index, project in found.keys() - wanted.keys():
            self.forget(index, [project])
        self._outdate()
        return {key[1] for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)}

    def _outdate(self) -> None:
        with self._lock:
            self._listing = None

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
        if self.first(index, project) != owner and self._write(index, project, owner):
            self._outdate()
            self.on_note(index, project, owner)

    def _write(self, index: str, project: str, owner: str) -> bool:
        path = self._path(index, project)
        if path is None:
            return False
        try:
            write_cached(path, f"{owner}\n".encode())
        except OSError as error:  # a full disk: clients get the page anyway
            threadlog.warn("%s: can't record that %s serves %s: %s", index, owner, project, error)
            return False
        return True

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
        self._outdate()

    def keep_only(self, indexes: Collection[str]) -> None:
        """Forget the records of indexes that are no more."""
        for path in self._directory.glob("*/*"):
            if "/".join(path.parts[-2:]) not in indexes:
                shutil.rmtree(path, ignore_errors=True)
                self._outdate()


def listed(directory: Path) -> str:
    """All records below ``directory``; a line has the owner, two spaces, and the path of its record."""
    lines = []
    for path in directory.glob("*/*/[!.]*"):
        with contextlib.suppress(OSError, UnicodeError):  # forgotten meanwhile
            lines.append(f"{path.read_text(encoding='utf-8').strip()}  {path.relative_to(directory)}\n")
    return "".join(sorted(lines))


def read(text: str) -> Mapping[tuple[str, str], str]:
    """The owners in a list by index and project. Raises ValueError."""
    found = {}
    for line in text.splitlines():
        owner, _, path = line.partition("  ")
        parts = path.split("/")
        if not owner or len(parts) != 3 or not all(parts) or set(parts) & {".", ".."} or "\0" in path:
            raise ValueError(path)
        found["/".join(parts[:2]), parts[2]] = owner
    return found
