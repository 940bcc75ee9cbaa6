"""``deployer package remove``: remove a version or a project from an index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Removing, client_index, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Removing):
    requirement: Annotated[str, Argument(metavar="NAME[==VERSION]", help="Project, or one version of it.")]
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index, else the clients' one.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Remove a version, or a whole project, from an index.

    On a mirror, this removes the cached files. An index with volatile=false keeps its files.
    """
    from deployer.devpi.admission import require_index
    from deployer.devpi.distributions import exact_version, parse_requirement
    from deployer.errors import Refused
    from deployer.ui.prompts import consent

    index = client_index(options, options.index)
    requirement = parse_requirement(options.requirement)
    version = exact_version(requirement)
    with connect(options) as session:
        if require_index(index, session.api.topology()).fields.get("volatile") is not True:
            raise Refused(
                f"{index} keeps its files (volatile=false)",
                hint=f"deployer index modify {index} volatile=true; set volatile=false again after the removal",
            )
        consent(f"{options.requirement} from {index}", yes=options.yes)
        session.login().remove(index, requirement.name, version)
    ui.step("package", f"{options.requirement} removed from {index}")
    return Result(data={"index": index, "project": requirement.name, "version": version})
