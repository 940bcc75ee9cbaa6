"""``deployer package push``: copy a release from one index to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    requirement: Annotated[str, Argument(metavar="NAME==VERSION", help="Release to copy.")]
    target: Annotated[str, Argument(metavar="USER/NAME", help="Target stage.")]
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Source index, else the clients' one.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Copy a release from one index to another, on the server."""
    from deployer.devpi.admission import require_index
    from deployer.devpi.distributions import exact_version, parse_requirement
    from deployer.errors import UsageError

    index = client_index(options, options.index)
    requirement = parse_requirement(options.requirement)
    version = exact_version(requirement)
    if not version:
        raise UsageError(f"no version of {requirement.name}", hint=f"write {requirement.name}==VERSION")
    with connect(options) as session:
        topology = session.api.topology()
        require_index(index, topology)
        if require_index(options.target, topology).fields.get("type") == "mirror":
            raise UsageError(f"{options.target} is a mirror and accepts no uploads", hint="name a stage as the target")
        files = session.login().push(index, requirement.name, version, target=options.target)
    ui.step("push", f"{requirement.name} {version}: {index} -> {options.target}")
    return Result(data={"index": index, "target": options.target, "version": version, "files": list(files)})
