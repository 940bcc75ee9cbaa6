"""``deployer audit``: projects in several indexes, the index that is served, and what pip and uv resolve; what the
rules of mirrors hold back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.protocol import RuledFile, TakenOver


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    names: Annotated[
        list[str] | None, Argument(metavar="NAME", help="Projects to check; default: all that several indexes have.")
    ] = None
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index to check, else the clients' one.")] = ""
    probes: Annotated[int, Option("--probes", metavar="N", min=0, help="Projects that pip and uv resolve.")] = 10
    policy: Annotated[bool, Option("--policy", help="List the cached files that break a rule instead.")] = False
    changes: Annotated[bool, Option("--changes", help="List replaced files, and names taken over, instead.")] = False


def run(options: Options, ui: UI) -> Result:
    """List what several indexes have, and what rules hold back.

    It resolves projects with this host's pip and uv, without installing them. It lists no upstream: it knows the
    projects that were served before. Exit code 9 means that several indexes serve a project, or that an installer got
    it from another index than the server reports; with --changes, that an upstream has replaced a file, or that another
    base of an ordered index would serve a project than at first.
    """
    from deployer.clients.installers import probe
    from deployer.deployment.find import require
    from deployer.devpi.names import project_name
    from deployer.errors import UsageError, VerificationError
    from deployer.operations.rules import client_index, report
    from deployer.protocol import Report

    if options.policy and options.changes:
        raise UsageError("--policy and --changes are two reports", hint="run one after the other")
    wanted = [project_name(name) for name in options.names or ()]
    deployment = require(options.name, engine=options.engine)
    index = options.index or client_index(deployment, "audit")
    if options.policy:
        return _policy(deployment, index, wanted)
    if options.changes:
        return _changes(deployment, index, wanted)
    held = [file for file in report(deployment, index, Report.HELD) if not wanted or file["project"] in wanted]
    answer = _ask(deployment, index, wanted)
    rows = []
    for number, project in enumerate(answer["projects"]):
        got = {}
        if number < options.probes:
            with ui.working("audit", project["name"]):
                got = probe(f"{deployment.url}/{index}/+simple/", project["name"])
        wrong = len(project["served_by"]) > 1 or any(
            origin not in ("", *project["served_by"]) for origin in got.values()
        )
        rows.append({**project, "got": got, "ok": not wrong})
    bad = [row["name"] for row in rows if not row["ok"]]
    error = None
    if bad:
        error = VerificationError(
            f"{', '.join(bad[:5])}{' and more' * (len(bad) > 5)}: served by more than one index of {index}",
            hint=f"set indexes.{index}.type: ordered in the profile (docs/how-to/private-packages.md)",
        )
    files = [dict(file) for file in held]
    data = {"index": index, "projects": rows, "left_out": answer["left_out"], "files": files, "taken": []}
    return Result(data=data, text=f"{_text(index, rows)}\n{_lines(held)}", error=error)


def _policy(deployment: Deployment, index: str, names: list[str]) -> Result:
    """The stored files that break a rule."""
    from deployer.operations.rules import report
    from deployer.protocol import Report

    files = [file for file in report(deployment, index, Report.POLICY) if not names or file["project"] in names]
    return _reported(index, files, [], f"{index}: no stored file breaks a rule")


def _changes(deployment: Deployment, index: str, names: list[str]) -> Result:
    """The files that an upstream has replaced, and the projects that another base has taken over."""
    from dataclasses import replace

    from deployer.errors import VerificationError
    from deployer.operations.rules import reported
    from deployer.protocol import Report

    files, taken = reported(deployment, index, Report.CHANGES)
    files = [file for file in files if not names or file["project"] in names]
    taken = [one for one in taken if not names or one["project"] in names]
    error = None
    if files:
        error = VerificationError(
            f"{files[0]['mirror']}: an upstream has replaced {files[0]['filename']}"
            f"{f' and {len(files) - 1} more' * (len(files) > 1)}",
            hint="ask its publisher; deployer mirror modify INDEX changed=allow lets such files in",
        )
    elif taken:
        error = VerificationError(
            f"{taken[0]['index']}: {taken[0]['now']} has taken {taken[0]['project']} over"
            f"{f' and {len(taken) - 1} more' * (len(taken) > 1)}",
            hint=f"if that is right: deployer index accept {taken[0]['index']} {taken[0]['project']}",
        )
    none = f"{index}: no file was replaced by its upstream, and every project has the base that served it first"
    return replace(_reported(index, files, taken, none), error=error)


def _reported(index: str, files: list[RuledFile], taken: list[TakenOver], none: str) -> Result:
    from deployer.operations.rules import taken as line

    data = {"index": index, "projects": [], "left_out": 0, "files": [dict(file) for file in files]}
    data["taken"] = [dict(one) for one in taken]
    lines = [*([_lines(files)] if files else []), *map(line, taken)]
    return Result(data=data, text="\n".join(lines) or none)


def _lines(files: list[RuledFile]) -> str:
    from deployer.operations.rules import report_line

    more = [f"{len(files) - _PRINTED} more: --json lists them"] if len(files) > _PRINTED else []
    return "\n".join([*map(report_line, files[:_PRINTED]), *more]) or "no rule holds anything back"


_PRINTED = 50
"""Files that are printed."""
_AT_ONCE = 50
"""Names in one request: its address must not be too long."""
_MOST = 1000
"""Projects that one audit looks at."""


def _ask(deployment: Deployment, index: str, names: list[str]) -> dict[str, Any]:
    """Ask the server for the indexes of each project, a few at a time. Raises ServerRefused, NotReadyError."""
    from deployer.operations.rules import names as ask

    projects: list[Any] = []
    left_out = 1
    while left_out and len(projects) < _MOST:
        left = names[len(projects) :]
        after = projects[-1]["name"] if projects and not names else ""
        found = ask(deployment, index, left[:_AT_ONCE], after=after)
        if not found["projects"]:
            break
        projects += found["projects"]
        left_out = len(names) - len(projects) if names else found["left_out"]
    else:
        return {"projects": projects, "left_out": left_out}
    return {"projects": projects, "left_out": 0}


def _text(index: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"{index}: no known project is in more than one index"
    lines = []
    for row in rows:
        served = " and ".join(row["served_by"]) or "no index"
        owner = f", owned by {row['owner']}" if row["owner"] else ""
        got = "".join(f", {client} got {origin or 'nothing'}" for client, origin in row["got"].items())
        known = f"known in {', '.join(row['known_in'])}" if row["known_in"] else "unknown so far"
        lines.append(f"{'ok   ' if row['ok'] else 'WRONG'} {row['name']}: served by {served}{owner} ({known}){got}")
    return "\n".join(lines)
