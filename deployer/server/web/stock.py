"""What the projects that are here take and are used for, as the inventory knows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from deployer.server.inventory.database import Inventory

_STORED = "kind in ('file', 'upload')"
_COLUMNS = f"""
    project, count(distinct version) filter (where {_STORED}), count(*) filter (where {_STORED}), sum(disk),
    coalesce(sum(uses) filter (where {_STORED}), 0), max(last)
"""
_OF_NAMES = f"select {_COLUMNS} from items where project in ({{}}) group by project"  # noqa: S608 - constants
_ORDERED = f"select {_COLUMNS} from items group by project order by {{}} desc, project limit ?"  # noqa: S608 - constants
_FILES = "select idx, path, first, last, uses from items where project = ? and kind in ('file', 'upload')"
_TOTALS = (
    "select coalesce(sum(number) filter (where kind in ('file', 'upload')), 0), coalesce(sum(bytes), 0) from totals"
)


@dataclass(frozen=True)
class Stock:
    """A project over all indexes. ``files``: that are stored. ``bytes``: of the disk, with pages and metadata.

    ``uses``: requests for its files. ``used``: the date of its last use.
    """

    project: str
    versions: int
    files: int
    bytes: int
    uses: int
    used: str


@dataclass(frozen=True)
class FileUse:
    """A stored file: the dates since when it is here and of its last use, and the requests for it."""

    since: str
    used: str
    uses: int


def of(inventory: Inventory, names: Collection[str]) -> Mapping[str, Stock]:
    """What is here of projects (normalised names), by name."""
    if not names:
        return {}
    found = _stocks(inventory.read(_OF_NAMES.format(", ".join("?" * len(names))), tuple(names)))
    return {one.project: one for one in found}


def largest(inventory: Inventory, number: int) -> Sequence[Stock]:
    """The projects that take most of the disk."""
    return _stocks(inventory.read(_ORDERED.format(4), (number,)))


def most_used(inventory: Inventory, number: int) -> Sequence[Stock]:
    """The projects whose files are asked for most."""
    return [one for one in _stocks(inventory.read(_ORDERED.format(5), (number,))) if one.uses]


def totals(inventory: Inventory) -> tuple[int, int]:
    """Stored files, and the bytes of all that is here."""
    ((files, size),) = inventory.read(_TOTALS)
    return files, size


def files(inventory: Inventory, project: str) -> Mapping[str, FileUse]:
    """The stored files of a project, by their path on this server."""
    return {
        f"{index}/{path}": FileUse(_day(first), _day(last), uses)
        for index, path, first, last, uses in inventory.read(_FILES, (project,))
    }


def _stocks(rows: Sequence[tuple[Any, ...]]) -> list[Stock]:
    return [
        Stock(project, versions, files, size, uses, _day(last)) for project, versions, files, size, uses, last in rows
    ]


def _day(seconds: object) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat() if isinstance(seconds, (int, float)) else ""
