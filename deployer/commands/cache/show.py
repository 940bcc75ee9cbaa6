"""``deployer cache show``: the files of a project that the server has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Located, index_name
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.protocol import FileItem


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    project: Annotated[str, Argument(metavar="PROJECT", help="Name of the project.")]
    index: Annotated[
        str, Option("--index", metavar="USER/NAME", callback=index_name, help="This index only; default: all.")
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Show the files of a project that the server has.

    Each has its size, age and uses. The page of a mirrored project is listed, and so are metadata,
    provenance and signatures beside its files.
    """
    from deployer.deployment.session import connect
    from deployer.errors import ConflictError
    from deployer.operations.cache import contents
    from deployer.protocol import InventoryRequest

    with connect(options.name, engine=options.engine) as session:
        found = contents(session, InventoryRequest(index=options.index, project=options.project)).files
    if not found:
        raise ConflictError(f"nothing of {options.project} is here", hint="deployer cache list")
    return Result(data={"files": list(found)}, text=_text(found))


def _text(found: Sequence[FileItem]) -> str:
    from deployer.diagnosis import size
    from deployer.ui.table import table

    rows = [
        (
            one["path"].rpartition("/")[2],
            one["kind"],
            one["index"],
            one["version"] or "-",
            size(one["bytes"]),
            str(one["uses"]),
            one["first"][:10],
            one["last"][:10],
            one["origin"] or "uploaded",
        )
        for one in found
    ]
    return table(("file", "kind", "index", "version", "size", "uses", "first", "last", "from"), rows)
