"""``deployer audit``: projects in several indexes, the index that is served, and what pip and uv resolve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.protocol import NamesAnswer


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    names: Annotated[
        list[str] | None, Argument(metavar="NAME", help="Projects to check; default: all that several indexes have.")
    ] = None
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="Index to check, else the clients' one.")] = ""
    probes: Annotated[int, Option("--probes", metavar="N", min=0, help="Projects that pip and uv resolve.")] = 10


def run(options: Options, ui: UI) -> Result:
    """List projects in several indexes, and which is served.

    It resolves projects with this host's pip and uv, without installing them. It lists no upstream: it knows the
    projects that were served before. Exit code 9 means that several indexes serve a project, or that an installer got
    it from another index than the server reports.
    """
    from deployer.clients.installers import probe
    from deployer.deployment.find import require
    from deployer.errors import VerificationError

    deployment = require(options.name, engine=options.engine)
    index = options.index or _index(deployment)
    answer = _ask(deployment, index, options.names or [])
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
    data = {"index": index, "projects": rows, "left_out": answer["left_out"]}
    return Result(data=data, text=_text(index, rows), error=error)


def _index(deployment: Deployment) -> str:
    from deployer.errors import UsageError

    found = (deployment.applied.profile.get("clients") or {}).get("index") if deployment.applied else None
    if not found:
        raise UsageError("the index of the clients is not recorded", hint="deployer audit --index USER/NAME")
    return str(found)


_AT_ONCE = 50
"""Names in one request: its address must not be too long."""
_MOST = 1000
"""Projects that one audit looks at."""


def _ask(deployment: Deployment, index: str, names: list[str]) -> dict[str, Any]:
    """Ask the server for the indexes of each project, a few at a time. Raises ServerRefused, NotReadyError."""
    projects: list[Any] = []
    left_out = 1
    while left_out and len(projects) < _MOST:
        left = names[len(projects) :]
        after = projects[-1]["name"] if projects and not names else ""
        found = _ask_some(deployment, index, left[:_AT_ONCE], after=after)
        if not found["projects"]:
            break
        projects += found["projects"]
        left_out = len(names) - len(projects) if names else found["left_out"]
    else:
        return {"projects": projects, "left_out": left_out}
    return {"projects": projects, "left_out": 0}


def _ask_some(deployment: Deployment, index: str, names: list[str], *, after: str) -> NamesAnswer:
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlencode, urlsplit

    from deployer.errors import NotReadyError, ServerRefused
    from deployer.protocol import NAMES_ROUTE, NamesAnswer, parsed
    from deployer.typed import built

    parts = urlsplit(deployment.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        query = urlencode([("index", index), ("after", after), *(("name", name) for name in names)])
        connection.request("GET", f"{NAMES_ROUTE}?{query}", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(16 << 20)
        if response.status != 200:
            raise ServerRefused(
                f"the server has no audit of {index} (HTTP {response.status})",
                hint="name an existing index with --index; audit needs deployer's own image",
            )
        found = built(NamesAnswer, parsed(body))
    except (OSError, HTTPException, ValueError):
        raise NotReadyError(f"{deployment.name} does not answer at {deployment.url}", hint="deployer status") from None
    finally:
        connection.close()
    return {"index": index, "projects": found["projects"], "left_out": found["left_out"]}


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
