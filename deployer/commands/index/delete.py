"""``deployer index delete``: delete an index and every file on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Removing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Removing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the index.")]


def run(options: Options, ui: UI) -> Result:
    """Delete an index and its files, unless it is another's base."""
    from deployer.deployment.lock import hold
    from deployer.operations.indexes import admit_deletion, delete
    from deployer.ui.prompts import consent

    with hold(options.name, wait=options.wait), connect(options) as session:
        name = "" if options.url else options.name
        topology = admit_deletion(session, options.index, name=name)
        consent(f"{options.index} and every file on it", yes=options.yes)
        delete(session, options.index, topology)
    ui.step("index", f"{options.index} deleted")
    return Result(data={"index": options.index})
