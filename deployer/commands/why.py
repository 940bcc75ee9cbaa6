"""``deployer why``: which index serves a project, which rule holds what back until when, and what is cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument

from deployer.commands import AskedIndex, Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.protocol import ProjectNames, RuledFile, TakenOver


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    requirement: Annotated[str, Argument(metavar="NAME[==VERSION]", help="A project, or one version of it.")]
    index: AskedIndex = ""


def run(options: Options, ui: UI) -> Result:
    """Show which index serves a project, and what is held back.

    It names the rule, until when it holds, the owner of the name, and what is cached. It asks the server for the page
    as an installer does.
    """
    from deployer.deployment.find import require
    from deployer.devpi.names import project_name
    from deployer.operations.rules import client_index, names, reported
    from deployer.protocol import Report

    name, _, version = options.requirement.partition("==")
    project, version = project_name(name.strip()), version.strip()
    deployment = require(options.name, engine=options.engine)
    index = options.index or client_index(deployment, "why")
    (found,) = names(deployment, index, [project])["projects"]
    listed, taken = reported(deployment, index, Report.FILES, name=project)
    files = [file for file in listed if _is_of(file, version)]
    held = [file for file in files if file["rule"]]
    data = {
        "index": index,
        "project": project,
        "version": version,
        "served_by": found["served_by"],
        "known_in": found["known_in"],
        "owner": found["owner"],
        "let_in": sorted({file["version"] for file in files if not file["rule"]}),
        "held": [dict(file) for file in held],
        "taken": [dict(one) for one in taken],
        "cached": sorted(file["filename"] for file in files if file["cached"]),
    }
    return Result(data=data, text=_text(index, found, files, taken, version))


def _is_of(file: RuledFile, version: str) -> bool:
    from packaging.utils import canonicalize_version

    return not version or canonicalize_version(file["version"]) == canonicalize_version(version)


def _text(index: str, found: ProjectNames, files: list[RuledFile], taken: list[TakenOver], version: str) -> str:
    from deployer.operations.rules import report_line
    from deployer.operations.rules import taken as line

    what = f"{found['name']}=={version}" if version else found["name"]
    served = " and ".join(found["served_by"]) or "no index"
    owner = found["owner"] or "no pattern owns the name"
    rows: list[tuple[str, Any]] = [
        ("project", f"{what} through {index}"),
        ("served by", served),
        ("owner", owner),
        ("known in", ", ".join(found["known_in"]) or "unknown so far"),
    ]
    rows += [("refused", f"{line(one)}: deployer index accept {one['index']} {one['project']}") for one in taken]
    held = [file for file in files if file["rule"]]
    let_in = [file for file in files if not file["rule"]]
    rows.append(("let in", f"{len(let_in)} files of mirrors"))
    rows.append(("cached", ", ".join(sorted(file["filename"] for file in files if file["cached"])) or "nothing"))
    rows += [("held back", report_line(file)) for file in held[:20]] or [("held back", "nothing")]
    if len(held) > 20:
        rows.append(("", f"{len(held) - 20} more: --json lists them"))
    return "\n".join(f"{label:<9}  {value}" for label, value in rows)
