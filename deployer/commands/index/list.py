"""``deployer index list``: every index of the server."""

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
    return listed(options, only=options.only)


def listed(options: Talking, *, only: str) -> Result:
    """The indexes of one type, or of every type when ``only`` is empty."""
    from deployer.devpi.declared import shown

    with connect(options) as session:
        indexes = session.api.topology().indexes
    rows = [
        {"name": name, **shown(node)}
        for name, node in sorted(indexes.items())
        if not only or node.fields.get("type") == only
    ]
    width = max((len(str(row["name"])) for row in rows), default=0)
    text = "\n".join(f"{str(row['name']).ljust(width)}  {row.get('type', ''):8}{_source(row)}".rstrip() for row in rows)
    return Result(data={"indexes": rows}, text=text)


def _source(row: dict[str, object]) -> str:
    bases = row.get("bases")
    return ", ".join(bases) if isinstance(bases, list) else str(row.get("url", ""))
