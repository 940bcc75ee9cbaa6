"""Compare the inventory with the disk, directory by directory: in the background, and slowly.

It finds what was stored before there was an inventory, or by others, and what a kill or a full disk kept out of it. It
runs some seconds after a start, once a day, and after indexes have changed.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devpi_server.log import threadlog

from deployer.protocol import Kind
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.items import item_of

FIRST = 3.0
"""Seconds after the start."""
DAILY = 86_400.0
PAUSE = 0.002
"""Seconds between two directories: whoever serves goes first."""
_KNOWN = "select path, size, kind from items where idx = ? and path >= ? and path < ? and (kind = 'companion') = ?"


@dataclass(frozen=True)
class Places:
    """The roots of devpi's files, of companions and of pages: each has a directory ``USER/INDEX`` for an index."""

    files: Path
    companions: Path
    pages: Path


class Comparison:
    """``url_of``: the upstream of a mirror, None for other indexes."""

    def __init__(self, inventory: Inventory, places: Places, url_of: Callable[[str], str | None]) -> None:
        self._inventory, self._places, self._url_of = inventory, places, url_of
        self._wanted = threading.Event()

    def soon(self) -> None:
        """Have it done soon."""
        self._wanted.set()

    def watch(self) -> None:
        """Do it when it is due; runs until the process ends."""
        wait = FIRST
        while True:
            self._wanted.wait(wait)
            self._wanted.clear()
            wait = DAILY
            try:
                self.run(pause=lambda: threading.Event().wait(PAUSE))
            except (OSError, sqlite3.Error) as error:
                threadlog.warn("the inventory can't be compared with the disk: %s", error)

    def run(self, pause: Callable[[], Any] = lambda: None) -> None:
        """Compare all of it. ``pause``: called after each directory."""
        known = {row[0] for row in self._inventory.read("select distinct idx from items")}
        for index in sorted(known | {*_indexes(self._places.files), *_indexes(self._places.pages)}):
            for companions, root in ((False, self._places.files), (True, self._places.companions)):
                for part in self._parts(index, root / index, companions=companions):
                    self._compare(index, root / index, part, companions=companions)
                    pause()
            self._pages(index)
            pause()
        self._inventory.flush()

    def _parts(self, index: str, root: Path, *, companions: bool) -> list[str]:
        """The directories that are compared one by one: below ``+f`` the first three digits of a hash."""
        found = {f"{above}/{name}" for above in ("+e", "+f") for name in _names(root / above)}
        rows = self._inventory.read(
            "select distinct substr(path, 1, 3) || substr(path, 4, instr(substr(path, 4), '/') - 1) from items"
            " where idx = ? and kind <> 'page' and (kind = 'companion') = ?",
            (index, companions),
        )
        return sorted(found | {row[0] for row in rows})

    def _compare(self, index: str, root: Path, part: str, *, companions: bool) -> None:
        url = self._url_of(index)
        usual = Kind.UPLOAD if url is None else Kind.FILE
        wanted = Kind.COMPANION if companions else usual
        rows = self._inventory.read(_KNOWN, (index, f"{part}/", f"{part}0", companions))
        known = {path: (size, kind) for path, size, kind in rows}
        for path, status in _below(root, part):
            if known.pop(path, None) != (status.st_size, wanted):
                self._drop(index, path, wanted)
                self._keep(wanted, index, path, status, url)
        for path in known:
            if not os.path.lexists(root / path):  # it may have come a moment ago
                self._inventory.drop(index, path, _of(wanted))

    def _drop(self, index: str, path: str, wanted: Kind) -> None:
        """Drop a row of another kind."""
        self._inventory.drop(index, path, [kind for kind in _of(wanted) if kind is not wanted])

    def _keep(self, kind: Kind, index: str, path: str, status: os.stat_result, url: str | None) -> None:
        at = status.st_mtime
        known: dict[str, Any] = {"size": status.st_size, "first": at, "last": at, "origin": url or ""}
        self._inventory.keep(item_of(kind, index, path, **known))

    def _pages(self, index: str) -> None:
        rows = self._inventory.read("select path, size from items where idx = ? and kind = 'page'", (index,))
        known = dict(rows)
        for entry in _scan(self._places.pages / index):
            if entry.name.startswith(".") or not entry.is_file():
                continue
            status = entry.stat()
            if known.pop(entry.name, None) is None:
                known_of: dict[str, Any] = {"size": status.st_size, "first": status.st_mtime, "last": status.st_mtime}
                item = item_of(
                    Kind.PAGE, index, entry.name, project=entry.name, origin=self._url_of(index) or "", **known_of
                )
                self._inventory.keep(item)
        for project in known:
            self._inventory.drop(index, project, (Kind.PAGE,))


def _of(kind: Kind) -> Collection[Kind]:
    """The kinds that may stand at the place of a file of this kind."""
    return (Kind.COMPANION,) if kind is Kind.COMPANION else (Kind.FILE, Kind.UPLOAD)


def _indexes(root: Path) -> Iterator[str]:
    for user in _names(root):
        for index in _names(root / user):
            yield f"{user}/{index}"


def _below(root: Path, part: str) -> Iterator[tuple[str, os.stat_result]]:
    for directory, _, names in os.walk(root / part):
        for name in names:
            path = os.path.join(directory, name)  # noqa: PTH118 - of many files
            if name.startswith(".") or name.endswith(".new"):
                continue
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            yield os.path.relpath(path, root), status


def _scan(directory: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _names(directory: Path) -> list[str]:
    return [entry.name for entry in _scan(directory) if not entry.name.startswith(".")]
