"""What nginx may send without asking: it finds stored files and their companions below ``.deployer/run`` only.

An index without rules is one link, to all of its files. An index with rules is a directory with a link for each file
that the rules have let in. A file that was let in stays so until a rule changes: the rules on age only ever let in
more. When a rule changes, the directory is replaced by an empty one before the change is acknowledged. What nginx
does not find goes to the server, which decides.

What not everybody may read is below another directory, ``read``, where nginx looks only for a client that the server
has granted it (:mod:`deployer.server.guard.grants`). When the readers of an index change, its links are made anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Collection, Mapping
from itertools import count
from pathlib import Path

from deployer.server.guard.readers import READ
from deployer.server.guard.rules import Rules

FILES, COMPANIONS, _TRASH = "files", "companions", ".trash"
MOST = 100_000
"""Files of one index that are remembered as let in. With more, it begins anew."""


class Sendable:
    """The links below ``directory``. ``files`` and ``companions``: the roots of both kinds; None: nginx does not run.

    Every method may be called from any thread.
    """

    def __init__(self, directory: Path | None, *, files: Path, companions: Path) -> None:
        self._directory = directory
        self._roots = {FILES: files, COMPANIONS: companions}
        self._lock = threading.Lock()
        self._protected: frozenset[str] = frozenset()
        self._rules: dict[str, Rules] = {}
        self._let_in: dict[str, set[str]] = {}
        self._numbers = count()
        self._begun = False

    def configure(
        self, indexes: Collection[str], rules: Mapping[str, Rules], protected: frozenset[str] = frozenset()
    ) -> None:
        """Adapt the links to the indexes, to the ``rules`` of those that have any, and to those that are ``protected``:
        not everybody may read them.

        Raises OSError when a link can't be removed.
        """
        with self._lock:
            wanted = {name: rules.get(name, Rules()) for name in indexes}
            if not self._begun:
                self._take_over(wanted, protected)
            moved = protected ^ self._protected
            for name in [name for name in self._rules if wanted.get(name) != self._rules[name] or name in moved]:
                self._forget(name)
            self._protected = protected
            for name in wanted.keys() - self._rules.keys():
                self._add(name, guarded=wanted[name].any)
                self._rules[name] = wanted[name]

    def _take_over(self, wanted: Mapping[str, Rules], protected: frozenset[str]) -> None:
        """Keep the links of a server that began anew where all files of an index may be sent, and remove the others."""
        self._begun = True
        kinds = [f"{level}{kind}" for level in ("", f"{READ}/") for kind in self._roots]
        found = [place for kind in kinds for place in self._directory.glob(f"{kind}/*/*")] if self._directory else ()
        for place in found:
            index = f"{place.parent.name}/{place.name}"
            moved = (place.parents[2].name == READ) != (index in protected)
            if not place.is_symlink() or index not in wanted or wanted[index].any or moved:
                self._remove(index)

    def reset(self) -> None:
        """Remove all links, until the indexes are known again. Raises OSError when one can't be removed."""
        with self._lock:
            for name in list(self._rules):
                self._forget(name)

    def _forget(self, name: str) -> None:
        del self._rules[name]
        self._let_in.pop(name, None)
        self._remove(name)

    def is_let_in(self, index: str, rules: Rules, path: str) -> bool:
        """Whether the file at ``path`` below an index was let in by these ``rules``."""
        with self._lock:
            return self._rules.get(index) == rules and path in self._let_in.get(index, ())

    def let_in(self, index: str, rules: Rules, path: str, suffixes: Collection[str]) -> None:
        """Note that ``rules`` allow the file that a page lists at ``path``.

        nginx sends it, and its companions with these suffixes, from now on.
        """
        with self._lock:
            if self._rules.get(index) != rules:  # they have changed since
                return
            known = self._let_in.setdefault(index, set())
            if len(known) >= MOST:
                known.clear()
            known.add(path)
            self._link(FILES, index, path)
            for suffix in suffixes:
                self._link(COMPANIONS, index, f"{path}{suffix}")

    def _place(self, kind: str, index: str) -> Path | None:
        level = READ if index in self._protected else ""
        return self._place_at(level, kind, index)

    def _place_at(self, level: str, kind: str, index: str) -> Path | None:
        user, slash, name = index.partition("/")
        plain = slash and all(part not in ("", ".", "..") and "/" not in part for part in (user, name))
        return self._directory / level / kind / user / name if self._directory is not None and plain else None

    def _add(self, index: str, *, guarded: bool) -> None:
        for kind, root in self._roots.items():
            place = self._place(kind, index)
            if place is None:
                continue
            with contextlib.suppress(OSError):  # a full disk: the server sends the files
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                if guarded:
                    place.mkdir(mode=0o700)
                else:
                    place.symlink_to(root / index)

    def _link(self, kind: str, index: str, path: str) -> None:
        place = self._place(kind, index)
        if place is None or not {"", ".", ".."}.isdisjoint(path.split("/")):  # it would be the link of another file
            return
        with contextlib.suppress(OSError):
            (place / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            (place / path).symlink_to(self._roots[kind] / index / path)

    def _remove(self, index: str) -> None:
        for place in (self._place_at(level, kind, index) for level in ("", READ) for kind in self._roots):
            if self._directory is None or place is None or not os.path.lexists(place):
                continue
            if place.is_symlink():
                place.unlink()
                continue
            trash = self._directory / _TRASH
            trash.mkdir(mode=0o700, exist_ok=True)
            hidden = trash / str(next(self._numbers))
            place.rename(hidden)  # at once: nginx finds none of it
            shutil.rmtree(hidden, ignore_errors=True)
