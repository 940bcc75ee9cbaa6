"""What a server says of the rules of its mirrors, and of the indexes that have a project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from deployer.protocol import NAMES_ROUTE, RULES_ROUTE, NamesAnswer, Report, RuledFile, RulesAnswer

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment

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
    found: list[RuledFile] = []
    after = ""
    while len(found) < MOST:
        query = [("index", index), ("list", str(wanted)), ("name", name), ("after", after)]
        answer = _get(deployment, RULES_ROUTE, query, RulesAnswer, index)
        found += answer["files"]
        if not answer["after"] or answer["after"] == after:
            break
        after = answer["after"]
    return found


def _get(deployment: Deployment, route: str, query: Sequence[tuple[str, str]], kind: type[T], index: str) -> T:
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlencode, urlsplit

    from deployer.errors import NotReadyError, ServerRefused
    from deployer.protocol import parsed
    from deployer.typed import built

    parts = urlsplit(deployment.url)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
    try:
        connection.request("GET", f"{route}?{urlencode(query)}", headers={"Accept": "application/json"})
        response = connection.getresponse()
        body = response.read(_LARGEST)
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
