"""What the inventory answers: projects by index, the files of a project, and what all of it takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from deployer.protocol import FileItem, InventoryAnswer, InventoryRequest, KindTotal, ProjectItem
from deployer.server.inventory.database import Inventory

MOST = 10_000
"""Projects in one answer."""
_STORED = "kind in ('file', 'upload')"
_PROJECTS = f"""
    select idx, project, count(distinct version) filter (where {_STORED}), count(*) filter (where {_STORED}),
        count(*) filter (where kind = 'upload'), sum(disk), min(first), max(last),
        coalesce(sum(uses) filter (where {_STORED}), 0), max(origin)
    from items
    where (? = '' or idx = ?) and (? = '' or instr(project, ?) > 0) and (idx, project) > (?, ?)
    group by idx, project order by idx, project limit ?
"""  # noqa: S608 - constants
_FILES = """
    select idx, project, version, kind, path, size, disk, first, last, uses, origin from items
    where project = ? and (? = '' or idx = ?) order by idx, kind, path
"""


def answer(inventory: Inventory, wanted: InventoryRequest) -> InventoryAnswer:
    """The answer to a request of :class:`InventoryRequest`."""
    if wanted.project:
        files = of_project(inventory, wanted.project, index=wanted.index)
        return InventoryAnswer(projects=[], files=files, totals=totals(inventory), after="")
    index, _, project = wanted.after.partition(" ")
    found = projects(inventory, index=wanted.index, search=wanted.search, after=(index, project), most=MOST)
    after = f"{found[-1]['index']} {found[-1]['project']}" if len(found) == MOST else ""
    return InventoryAnswer(projects=found, files=[], totals=totals(inventory), after=after)


def projects(
    inventory: Inventory, *, index: str = "", search: str = "", after: tuple[str, str] = ("", ""), most: int = MOST
) -> list[ProjectItem]:
    """The projects of each index, by name. ``search``: a part of a name, in any spelling. ``after``: the index and the
    project that come before the first one."""
    part = search.lower().replace("_", "-").replace(".", "-")
    return [
        ProjectItem(
            index=row[0],
            project=row[1],
            versions=row[2],
            files=row[3],
            uploads=row[4],
            bytes=row[5],
            first=_iso(row[6]),
            last=_iso(row[7]),
            uses=row[8],
            origin=row[9],
        )
        for row in inventory.read(_PROJECTS, (index, index, part, part, *after, most))
    ]


def of_project(inventory: Inventory, project: str, *, index: str = "") -> list[FileItem]:
    """The files of a project (normalised name), its pages, and what stands beside its files."""
    return [_file(row) for row in inventory.read(_FILES, (project, index, index))]


def totals(inventory: Inventory) -> dict[str, KindTotal]:
    """Number and bytes on the disk of all that is here, by kind."""
    rows = inventory.read("select kind, number, bytes from totals order by kind")
    return {kind: KindTotal(number=number, bytes=size) for kind, number, size in rows}


def _file(row: tuple[Any, ...]) -> FileItem:
    return FileItem(
        index=row[0],
        project=row[1],
        version=row[2],
        kind=row[3],
        path=row[4],
        size=row[5],
        bytes=row[6],
        first=_iso(row[7]),
        last=_iso(row[8]),
        uses=row[9],
        origin=row[10],
    )


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
