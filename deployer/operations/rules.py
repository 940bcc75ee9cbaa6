"""What a server says of the rules of its mirrors, and of the indexes that have a project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from deployer.protocol import NAMES_ROUTE, RULES_ROUTE, NamesAnswer, Report, RuledFile, RulesAnswer, TakenOver

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.deployment.session import Session

MOST = 10_000
"""Files of one report."""
_LARGEST = 16 << 20
T = TypeVar("T")


def client_index(deployment: Deployment, command: str) -> str:
    """The index of the clients of a deployment. Raises UsageError where it is not recorded."""
    from deployer.errors import UsageError

    found = (deployment.applied.profile.get("clients") or {}).get("index") if deployment.applied else None
    if not found:
        raise UsageError("the index of the clients is not recorded", hint=f"deployer {command} --index USER/NAME")
    return str(found)


def names(deployment: Deployment, index: str, projects: Sequence[str], *, after: str = "") -> NamesAnswer:
    """The indexes that have these projects, all that several indexes have where there are none, and who serves each.

    Raises ServerRefused, NotReadyError.
    """
    query = [("index", index), ("after", after), *(("name", name) for name in projects)]
    return _get(deployment, NAMES_ROUTE, query, NamesAnswer, index)


def report(deployment: Deployment, index: str, wanted: Report, *, name: str = "") -> list[RuledFile]:
    """The files of mirrors below an index; of one project where it is named. Raises as :func:`names`."""
    return reported(deployment, index, wanted, name=name)[0]


def reported(
    deployment: Deployment, index: str, wanted: Report, *, name: str = ""
) -> tuple[list[RuledFile], list[TakenOver]]:
    """The same, and the projects of ordered indexes that another base would serve now than at first."""
    found: list[RuledFile] = []
    taken: list[TakenOver] = []
    after = ""
    while len(found) + len(taken) < MOST:
        query = [("index", index), ("list", str(wanted)), ("name", name), ("after", after)]
        answer = _get(deployment, RULES_ROUTE, query, RulesAnswer, index)
        found += answer["files"]
        taken += answer.get("taken", [])
        if not answer["after"] or answer["after"] == after:
            break
        after = answer["after"]
    return found, taken


def accept(session: Session, index: str, projects: Sequence[str]) -> list[TakenOver]:
    """Have an ordered index take what its bases serve now of these projects, of all where there are none.

    Raises UsageError for the name of a project, ServerRefused for an index that is not ordered.
    """
    from deployer.devpi.admission import require_index
    from deployer.devpi.api import NO_ACCEPT
    from deployer.devpi.names import project_name

    names = tuple(dict.fromkeys(map(project_name, projects))) or None
    require_index(index, session.api.topology(), kind="ordered")
    assert session.deployment is not None  # noqa: S101 - narrowed by the caller
    return session.api.accept(index, names, proof_key=session.deployment.proof_key(otherwise=NO_ACCEPT))


def _get(deployment: Deployment, route: str, query: Sequence[tuple[str, str]], kind: type[T], index: str) -> T:
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlencode, urlsplit

    from deployer.clients.netrc import headers
    from deployer.errors import NotReadyError, ServerRefused
    from deployer.protocol import parsed
    from deployer.typed import built

    parts, login = urlsplit(deployment.url), headers(deployment.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        connection.request("GET", f"{route}?{urlencode(query)}", headers={"Accept": "application/json", **login})
        response = connection.getresponse()
        body = response.read(_LARGEST)
        if response.status in (401, 403):
            raise ServerRefused(
                f"{index} can be read with a login only (HTTP {response.status})", hint="deployer clients login"
            )
        if response.status != 200:
            raise ServerRefused(
                f"the server has no audit of {index} (HTTP {response.status})",
                hint="name an existing index with --index; audit needs deployer's own image",
            )
        return built(kind, parsed(body))
    except (OSError, HTTPException, ValueError):
        raise NotReadyError(f"{deployment.name} does not answer at {deployment.url}", hint="deployer status") from None
    finally:
        connection.close()


def report_line(file: RuledFile) -> str:
    """One line of a report."""
    until = f" until {file['until']}" if file["until"] else ""
    cached = ", cached" if file["cached"] else ""
    rule = f" by {file['rule']}" if file["rule"] else ""
    return f"{file['filename']}: held back{until}{rule} of {file['mirror']}{cached}: {file['reason']}"


def taken(one: TakenOver) -> str:
    """One line of a report."""
    return f"{one['project']}: {one['first']} served it through {one['index']} first, {one['now']} would serve it now"
