"""``deployer mirror delete``: a mirror and its cache."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Removing
from deployer.commands.index import delete
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Removing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Which mirror.")]


def run(options: Options, ui: UI) -> Result:
    """Delete a mirror and all that it has cached."""
    return delete.delete(options, ui, index=options.index, kind="mirror")
