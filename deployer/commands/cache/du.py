"""``deployer cache du``: what takes the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.operations.cache import Contents

NAMES = {"file": "cached files", "page": "pages of upstreams", "companion": "metadata", "upload": "uploads"}


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    top: Annotated[int, Option("--top", metavar="N", min=0, help="The N largest projects.")] = 10


def run(options: Options, ui: UI) -> Result:
    """Show what takes the disk: by kind, index and project.

    Only the largest projects are listed.
    """
    from deployer.deployment.session import connect
    from deployer.operations.cache import contents
    from deployer.protocol import InventoryRequest

    with connect(options.name, engine=options.engine) as session:
        found = contents(session, InventoryRequest())
        database, free = session.identity.database_bytes, session.identity.free_bytes
    indexes: dict[str, int] = {}
    for one in found.projects:
        indexes[one["index"]] = indexes.get(one["index"], 0) + one["bytes"]
    largest = sorted(found.projects, key=lambda one: -one["bytes"])[: options.top]
    return Result(
        data={
            "kinds": dict(found.totals),
            "indexes": indexes,
            "projects": [{key: one[key] for key in ("index", "project", "bytes", "last")} for one in largest],
            "database_bytes": database,
            "free_bytes": free,
        },
        text=_text(found, indexes, [(f"{one['index']}/{one['project']}", one["bytes"]) for one in largest], database),
    )


def _text(found: Contents, indexes: dict[str, int], largest: list[tuple[str, int]], database: int | None) -> str:
    from deployer.diagnosis import size
    from deployer.ui.table import table

    kinds = [(NAMES.get(kind, kind), str(of["number"]), size(of["bytes"])) for kind, of in found.totals.items()]
    if database is not None:
        kinds.append(("database", "1", size(database)))
    parts = [table(("what", "number", "size"), kinds)]
    if indexes:
        rows = sorted(indexes.items(), key=lambda item: -item[1])
        parts.append(table(("index", "size"), [(name, size(number)) for name, number in rows]))
    if largest:
        parts.append(table(("largest projects", "size"), [(name, size(number)) for name, number in largest]))
    return "\n\n".join(parts)
