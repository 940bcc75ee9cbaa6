"""Remove what was not used for long from the cache: files of mirrors, pages of upstreams, and what stands beside files.

Uploads are never candidates. Spared are also the files that ``warm`` of the profile lists, and whatever could not be
had again: files that their upstream does not list now, pages with the memory of rules, pages of projects with files.

A client that reads a file reads it to its end. Whoever asks for it later gets it from the upstream, as the first time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.protocol import Kind, KindTotal, Pruned, PruneRequest
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.pinned import Pinned
from deployer.server.mirrors.companions import Companions
from deployer.server.mirrors.files import RemoteFiles
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.source import Source

SECONDS = 5.0
"""Seconds after which a request is answered; the client asks again."""
REMEMBERED = 600.0
"""Seconds for which a file counts as not listed without its page being read again."""
MOST_REMEMBERED = 50_000
BATCH = 25
"""Files that are removed by one commit."""
PAUSE = 0.02
"""Seconds between two commits: whoever else writes goes first."""
_ROWS = """
    select last, idx, path, kind, project, disk from items
    where kind <> 'upload' and (last, idx, path) > (?, ?, ?)
    and (? is null or last < ?) and (? = '' or idx = ?) and (? = '' or project = ?)
    order by last, idx, path limit 500
"""
_CACHED = "select coalesce(sum(bytes), 0) from totals where kind <> 'upload'"
_FILES_OF = "select count(*) from items where idx = ? and project = ? and kind = 'file'"


@dataclass(frozen=True)
class Cached:
    """A row that may be pruned."""

    last: float
    index: str
    path: str
    kind: Kind
    project: str
    disk: int


@dataclass
class Tally:
    """What a run has done."""

    removed: dict[str, KindTotal] = field(default_factory=dict)
    projects: Counter[str] = field(default_factory=Counter)
    linked: int = 0
    spared: Counter[str] = field(default_factory=Counter)
    files_left: dict[tuple[str, str], int] = field(default_factory=dict)
    """By index and project: files that remain."""
    pages: dict[tuple[str, str], Cached] = field(default_factory=dict)
    """Pages that go with the last file of their project."""

    def add(self, item: Cached, *, linked: bool) -> None:
        total = self.removed.setdefault(item.kind, KindTotal(number=0, bytes=0))
        total["number"] += 1
        total["bytes"] += item.disk
        self.projects[f"{item.index}/{item.project}"] += item.disk
        self.linked += item.disk if linked else 0

    def answer(self, cache_bytes: int, *, left: bool) -> Pruned:
        return Pruned(
            removed=dict(sorted(self.removed.items())),
            projects=dict(sorted(self.projects.items())),
            linked_bytes=self.linked,
            spared=dict(sorted(self.spared.items())),
            cache_bytes=cache_bytes,
            left=left,
        )


class Pruner:
    """``files``: the root of devpi's files."""

    def __init__(
        self,
        inventory: Inventory,
        pinned: Pinned,
        files: Path,
        *,
        indexes: Indexes,
        source: Source,
        remote: RemoteFiles,
        companions: Companions,
    ) -> None:
        self._inventory, self._pinned, self._files = inventory, pinned, files
        self._indexes, self._source, self._remote, self._companions = indexes, source, remote, companions
        self._unlisted: dict[tuple[str, str], float] = {}
        self.leaving = 0
        """Bytes that are being removed: the inventory may have forgotten them while they are still on the disk."""

    @property
    def cache_bytes(self) -> int:
        """What the cache takes of the disk."""
        return int(self._inventory.read(_CACHED)[0][0])

    def run(
        self,
        wanted: PruneRequest,
        *,
        seconds: float = SECONDS,
        pause: Callable[[], Any] = lambda: time.sleep(PAUSE),
    ) -> Pruned:
        """Prune, least recently used first, for at most so many seconds. ``pause``: called between two commits.

        Raises OSError and sqlite3.Error, for example on a full disk.
        """
        self._pinned.refresh()
        deadline = time.monotonic() + seconds
        tally, cache = Tally(), self.cache_bytes
        batch: list[Cached] = []
        left = False
        for item in self._items(wanted):
            if wanted.to_bytes is not None and cache <= wanted.to_bytes:
                break
            if time.monotonic() > deadline:
                left = True
                break
            for one in self._chosen(item, tally):
                cache -= one.disk
                batch.append(one)
            if len(batch) >= BATCH:
                self._remove(batch, tally, dry=wanted.dry)
                batch.clear()
                if not wanted.dry:
                    pause()
        self._remove(batch, tally, dry=wanted.dry)
        if tally.removed and not wanted.dry:
            self._inventory.shrink()
        return tally.answer(cache if wanted.dry else self.cache_bytes, left=left)

    def _items(self, wanted: PruneRequest) -> Iterator[Cached]:
        place: tuple[Any, ...] = (float("-inf"), "", "")
        filters = (wanted.before, wanted.before, wanted.index, wanted.index, wanted.project, wanted.project)
        while rows := self._inventory.read(_ROWS, (*place, *filters)):
            for last, index, path, kind, project, disk in rows:
                yield Cached(last, index, path, Kind(kind), project, disk)
            place = rows[-1][:3]

    def _chosen(self, item: Cached, tally: Tally) -> Iterator[Cached]:
        """The item, unless it is spared; with the last file of a project also its page."""
        mirror = self._indexes.mirror(item.index)
        if mirror is None:  # it is being removed with all that it has
            return
        if item.kind is not Kind.PAGE and self._pinned.has(item.index, item.path):
            tally.spared["warm"] += item.kind is Kind.FILE
            return
        match item.kind:
            case Kind.FILE:
                if not self._is_listed(mirror, item):
                    tally.spared["unlisted"] += 1
                    return
                of = (item.index, item.project)
                tally.files_left[of] = self._files_left(item, tally) - 1
                yield item
                if of in tally.pages and tally.files_left[of] == 0:
                    yield tally.pages.pop(of)
            case Kind.PAGE:
                if self._remembers(mirror, item):
                    tally.spared["rules"] += 1
                elif self._files_left(item, tally) > 0:
                    tally.pages[item.index, item.project] = item
                else:
                    yield item
            case _:
                yield item

    def _files_left(self, item: Cached, tally: Tally) -> int:
        of = (item.index, item.project)
        known = tally.files_left.get(of)
        return int(self._inventory.read(_FILES_OF, of)[0][0]) if known is None else known

    def _is_listed(self, mirror: Mirror, item: Cached) -> bool:
        """Whether the page that is known lists the file: then it can be had again."""
        key, now = (item.index, item.path), time.monotonic()
        if self._unlisted.get(key, 0.0) > now:
            return False
        kept = self._source.known(mirror, item.project)
        listed = kept is not None and not kept.head.gone and kept.find(item.path) is not None
        if not listed:
            if len(self._unlisted) >= MOST_REMEMBERED:
                self._unlisted.clear()
            self._unlisted[key] = now + REMEMBERED
        return listed

    def _remembers(self, mirror: Mirror, item: Cached) -> bool:
        kept = self._source.known(mirror, item.project)
        return kept is not None and self._source.remembers(mirror, kept)

    def _remove(self, batch: list[Cached], tally: Tally, *, dry: bool) -> None:
        for item in batch:
            tally.add(item, linked=item.kind is Kind.FILE and self._links(item) > 1)
        if dry:
            return
        files: dict[str, list[Cached]] = {}
        for item in batch:
            if item.kind is Kind.FILE:
                files.setdefault(item.index, []).append(item)
        self.leaving = sum(item.disk for item in batch)
        try:
            for index, items in files.items():
                self._remote.drop(index, [(item.path, item.project) for item in items])
            for item in batch:
                if item.kind is not Kind.FILE:
                    self._remove_other(item)
                self._inventory.drop(item.index, item.path, (item.kind,))
            self._inventory.flush()
        finally:
            self.leaving = 0

    def _links(self, item: Cached) -> int:
        try:
            return (self._files / item.index / item.path).stat().st_nlink
        except OSError:
            return 0

    def _remove_other(self, item: Cached) -> None:
        if item.kind is Kind.COMPANION:
            self._companions.remove(item.index, item.path)
        elif (mirror := self._indexes.mirror(item.index)) is not None:
            self._source.drop(mirror, item.project)
