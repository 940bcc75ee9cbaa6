"""``deployer cache list``: the projects that the server has, cached or uploaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from deployer.commands import Located, index_name
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.protocol import ProjectItem

ORDERS: Mapping[str, Callable[[ProjectItem], Any]] = {
    "name": lambda one: (one["project"], one["index"]),
    "size": lambda one: -one["bytes"],
    "uses": lambda one: -one["uses"],
    "last": lambda one: one["last"],
}


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    search: Annotated[str, Argument(metavar="[NAME]", help="A part of the project's name; default: all projects.")] = ""
    index: Annotated[
        str, Option("--index", metavar="USER/NAME", callback=index_name, help="This index only; default: all.")
    ] = ""
    unused: Annotated[
        str, Option("--unused", metavar="TIME", help="Only what nobody has used for so long, like 90d.")
    ] = ""
    uploads: Annotated[bool, Option("--uploads", help="Only projects with uploads.")] = False
    sort: Annotated[
        str, Option("--sort", metavar="ORDER", help="name; size or uses, largest first; last, longest unused first.")
    ] = "name"
    limit: Annotated[int, Option("--limit", metavar="N", min=0, help="At most N projects; 0: all.")] = 0


def run(options: Options, ui: UI) -> Result:
    """List the projects that the server has, cached or uploaded.

    Sizes are what files, pages and metadata take of the disk. A use is a request for a file. The last use may also be a
    request for the page of the project. Uses are some seconds late.
    """
    from deployer.deployment.session import connect
    from deployer.engines.timestamps import moment
    from deployer.errors import UsageError
    from deployer.operations.cache import contents
    from deployer.protocol import InventoryRequest

    if options.sort not in ORDERS:
        raise UsageError(f"unknown order: --sort {options.sort}", hint=f"use one of: {', '.join(ORDERS)}")
    limit = moment(options.unused, "--unused").isoformat(timespec="seconds") if options.unused else None
    with connect(options.name, engine=options.engine) as session:
        found = contents(session, InventoryRequest(index=options.index, search=options.search)).projects
    kept = [one for one in found if (limit is None or one["last"] < limit) and (one["uploads"] or not options.uploads)]
    chosen = sorted(kept, key=ORDERS[options.sort])[: options.limit or None]
    return Result(data={"projects": chosen, "left_out": len(kept) - len(chosen)}, text=_text(chosen))


def _text(found: Sequence[ProjectItem]) -> str:
    from deployer.diagnosis import size
    from deployer.ui.table import table

    rows = [
        (
            one["project"],
            one["index"],
            str(one["versions"]),
            str(one["files"]),
            size(one["bytes"]),
            str(one["uses"]),
            one["first"][:10],
            one["last"][:10],
            one["origin"] or "uploaded",
        )
        for one in found
    ]
    head = ("project", "index", "versions", "files", "size", "uses", "first", "last", "from")
    return table(head, rows) if rows else ""
