"""``deployer index show``: the fields of one index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the index.")]


def run(options: Options, ui: UI) -> Result:
    """Show the fields of an index as profile keys."""
    from deployer.devpi.admission import require_index
    from deployer.devpi.declared import shown

    with connect(options) as session:
        topology = session.api.topology()
    fields = shown(require_index(options.index, topology))
    heirs = list(topology.heirs(options.index))
    rows = {**fields, "base_of": heirs} if heirs else fields
    text = "\n".join(f"{key}: {', '.join(value) if isinstance(value, list) else value}" for key, value in rows.items())
    return Result(data={"name": options.index, **fields, "base_of": heirs}, text=text)
