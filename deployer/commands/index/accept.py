"""``deployer index accept``: let other bases of an ordered index serve projects than at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    index: Annotated[str, Argument(metavar="USER/NAME", help="Name of the ordered index.")]
    projects: Annotated[
        list[str] | None,
        Argument(metavar="[PROJECT]...", help="Projects; default: all."),
    ] = None


def run(options: Options, ui: UI) -> Result:
    """Accept that another base serves a project than at first.

    Until then nobody serves the project through the ordered index. `deployer audit --changes` lists such projects.
    Whoever serves a project next is recorded as its first owner. Without projects it accepts all, as is needed after a
    new order of bases.
    """
    from deployer.deployment.session import connect
    from deployer.operations.rules import accept, taken

    with connect(options.name, engine=options.engine) as session:
        found = accept(session, options.index, options.projects or ())
    ui.step("accepted", ", ".join(one["project"] for one in found) or "nothing has changed")
    data = {"index": options.index, "accepted": [dict(one) for one in found]}
    return Result(data=data, text="\n".join(map(taken, found)))
