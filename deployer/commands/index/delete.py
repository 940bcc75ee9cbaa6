"""``deployer index delete``: an index and every file on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Removing, connect, consent
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Removing):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Which index.")]


def run(options: Options, ui: UI) -> Result:
    """Delete an index with all its files, if no other builds on it."""
    return delete(options, ui, index=options.index)


def delete(options: Removing, ui: UI, *, index: str, kind: str = "") -> Result:
    """Delete ``index``, which is of the type ``kind`` when that is given."""
    from deployer.deployment.lock import hold
    from deployer.deployment.record import read_applied
    from deployer.devpi.admission import admit_removal
    from deployer.errors import Refused

    with hold(options.name, wait=options.wait), connect(options) as session:
        topology = session.api.topology()
        admit_removal(index, topology, kind=kind)
        applied = None if options.url else read_applied(options.name)
        if applied and f"/{index}/+simple" in applied.simple_url:
            raise Refused(
                f"{index} is what this deployment's clients use",
                hint="point them at another index first: deployer up --index USER/NAME",
            )
        node = topology.indexes[index]
        consent(f"{index} and every file on it", yes=options.yes)
        api = session.login()
        if node.fields.get("volatile") is not True:
            # Only a volatile index can be deleted; that it goes was said explicitly.
            api.patch_index(index, {"volatile": True})
        api.delete_index(index)
    ui.step("index", f"{index} deleted")
    return Result(data={"index": index})
