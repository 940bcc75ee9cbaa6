"""``deployer package list``: the projects on an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index, else the clients' one.")] = ""


def run(options: Options, ui: UI) -> Result:
    """List the projects on an index, without those of its bases.

    For a mirror, it lists the cached projects.
    """
    from deployer.devpi.admission import require_index
    from deployer.errors import Refused

    index = client_index(options, options.index)
    with connect(options) as session:
        node = require_index(index, session.api.topology())
        if node.fields.get("type") == "mirror" and node.fields.get("mirror_no_project_list") is not True:
            raise Refused(
                f"listing {index} would load the project list of its upstream",
                hint=f"name a project: deployer package show NAME --index {index}",
            )
        projects = sorted(session.api.projects(index))
    return Result(data={"index": index, "projects": projects}, text="\n".join(projects))
