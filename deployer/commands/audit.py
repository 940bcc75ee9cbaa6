"""``deployer audit``: which names are in more than one index, who serves them, and what installers really get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    names: Annotated[
        list[str] | None, Argument(metavar="NAME", help="Look at these names; left out: all that are there twice.")
    ] = None
    index: Annotated[str, Option("--index", metavar="USER/NAME", help="The index; left out: the one of clients.")] = ""
    probes: Annotated[int, Option("--probes", metavar="N", min=0, help="For how many names pip and uv are run.")] = 10


def run(options: Options, ui: UI) -> Result:
    """Tell which names several indexes have, and who wins.

    It runs the real pip and the real uv of this host to see what they get; nothing is installed.
    No index is listed: what is known is what was served before. Exit code 9 when a project is served by several
    indexes at once, or an installer got it from another one than the server says.
    """
    from deployer.clients.installers import probe
    from deployer.deployment.find import require
    from deployer.errors import VerificationError

    deployment = require(options.name, engine=options.engine)
    index = options.index or _index(deployment)
    told = _ask(deployment, index, options.names or [])
    rows = []
    for number, project in enumerate(told["projects"]):
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
            f"{', '.join(bad[:5])}{' and more' * (len(bad) > 5)}: more than one index of {index} serves them",
            hint=f"make the order of its bases real: indexes.{index}.type: ordered (docs/private-packages.md)",
        )
    data = {"index": index, "projects": rows, "left_out": told["left_out"]}
    return Result(data=data, text=_text(index, rows), error=error)


def _index(deployment: Deployment) -> str:
    from deployer.errors import UsageError

    found = (deployment.applied.profile.get("clients") or {}).get("index") if deployment.applied else None
    if not found:
        raise UsageError("which index is not known", hint="deployer audit --index USER/NAME")
    return str(found)


def _ask(deployment: Deployment, index: str, names: list[str]) -> dict[str, Any]:
    """What the server knows. Raises ServerRefused, NotReadyError."""
    import json
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlencode, urlsplit

    from deployer.errors import NotReadyError, ServerRefused
    from deployer.protocol import NAMES_ROUTE, NamesAnswer

    parts = urlsplit(deployment.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        query = urlencode([("index", index), *(("name", name) for name in names)])
        connection.request("GET", f"{NAMES_ROUTE}?{query}", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(16 << 20)
        if response.status != 200:
            raise ServerRefused(
                f"the server can't tell the names of {index} ({response.status})",
                hint="name an index that exists; an image that is not ours has no audit",
            )
        found: NamesAnswer = json.loads(body)
    except (OSError, HTTPException, ValueError):
        raise NotReadyError(f"{deployment.name} does not answer at {deployment.url}", hint="deployer status") from None
    finally:
        connection.close()
    return {"projects": list(found["projects"]), "left_out": int(found["left_out"])}


def _text(index: str, rows: list[dict[str, Any]]) -> str:
    if not rows:
        return f"{index}: no project that is known here is in more than one index"
    lines = []
    for row in rows:
        served = " and ".join(row["served_by"]) or "nobody"
        owner = f", owned by {row['owner']}" if row["owner"] else ""
        got = "".join(f", {client} got {origin or 'nothing'}" for client, origin in row["got"].items())
        known = f"known in {', '.join(row['known_in'])}" if row["known_in"] else "not known yet"
        lines.append(f"{'ok   ' if row['ok'] else 'WRONG'} {row['name']}: served by {served}{owner} ({known}){got}")
    return "\n".join(lines)
