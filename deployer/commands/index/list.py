"""``deployer index list``: the indexes of the server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    only: Annotated[str, Option("--type", metavar="TYPE", help="Only indexes of this type.")] = ""


def run(options: Options, ui: UI) -> Result:
    """List the indexes of the server."""
    from deployer.operations.indexes import listed, table

    with connect(options) as session:
        rows = listed(session, only=options.only)
    return Result(data={"indexes": rows}, text=table(rows))
