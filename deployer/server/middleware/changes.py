"""The log of changes: who changed what, and which logins and writes were refused.

One line of JSON for each, appended to ``log/changes.log``; what was refused has a file of its own, since anybody can
cause it and each file is rotated.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devpi_server.log import threadlog

from deployer.protocol import ACCEPT_ROUTE, CHANGE_LOGS, OFFLINE_ROUTE, Change
from deployer.server.middleware.files import Handler

LARGEST = 1 << 20
"""Bytes at which a file is rotated; CHANGE_LOGS of them are kept."""
LONGEST = 300
"""Characters of one value: names come from clients."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_REFUSED = (401, 403)
_WHO = "deployer.user"
_ACTIONS = {
    ("/{user}", "PUT"): "create user",
    ("/{user}", "PATCH"): "modify user",
    ("/{user}", "DELETE"): "delete user",
    ("/{user}/{index}", "PUT"): "create index",
    ("/{user}/{index}", "PATCH"): "modify index",
    ("/{user}/{index}", "DELETE"): "delete index",
    ("/{user}/{index}", "POST"): "upload",
    ("/{user}/{index}", "PUSH"): "push",
    ("/{user}/{index}/{project}", "DELETE"): "delete project",
    ("/{user}/{index}/{project}/{version}", "DELETE"): "delete version",
    ("/{user}/{index}/+e/{relpath:.*}", "DELETE"): "delete file",
    ("/{user}/{index}/+f/{relpath:.*}", "DELETE"): "delete file",
    ("/{user}/{index}/+f/{relpath:.*}", "POST"): "add test result",
    ("user-token-create", "POST"): "create token",
    ("user-token-delete", "DELETE"): "delete token",
    ("/+login", "POST"): "log in",
    (OFFLINE_ROUTE, "POST"): "switch offline",
    (ACCEPT_ROUTE, "POST"): "accept bases",
}
"""What a request does, by devpi's route and method. Routes with a slash at their end are the same."""


def describe(
    method: str, route: str, match: Mapping[str, str], sent: Mapping[str, Any], *, form: bool
) -> tuple[str, str, list[str]]:
    """Action, target and details of a request. ``sent``: the fields of its form or JSON body.

    The action is empty for a request that changes nothing here.
    """
    action = _ACTIONS.get((route.rstrip("/"), method), "")
    target = "/".join(str(match[key]) for key in ("user", "index", "project", "version") if key in match)
    match action:
        case "upload" if not form:
            where = str(sent.get("targetindex") or urlsplit(str(sent.get("posturl") or "")).netloc)
            return "push", _joined(target, sent), [where]
        case "upload":
            return action, _joined(target, sent), [str(sent.get("content", ""))]
        case "delete file" | "add test result":
            return action, f"{target}/{match.get('relpath', '')}", []
        case "log in":
            return action, "", []
        case "delete token":
            return action, target, [str(match.get("id", ""))]
        case "switch offline":
            return action, "", ["on" if sent.get("offline") else "off"]
        case "accept bases":
            projects = sent.get("projects")
            return action, str(sent.get("index", "")), [*map(str, projects)] if isinstance(projects, list) else ["all"]
        case "create user" | "create token":
            return action, target, []
        case _:
            return action, target, sorted(sent)


def _joined(target: str, sent: Mapping[str, Any]) -> str:
    return "/".join(part for part in (target, *(str(sent.get(key) or "") for key in ("name", "version"))) if part)


def _is_form(request: Any) -> bool:
    return bool(request.content_type == "multipart/form-data")


def sent_by(request: Any) -> dict[str, Any]:
    """The fields of a form, with file names in place of files, or of a JSON object, with devpi's ``key=value`` list."""
    if _is_form(request):
        return {key: getattr(value, "filename", value) for key, value in request.POST.items()}
    try:
        body = request.json_body
    except (ValueError, RecursionError):
        return {}
    if isinstance(body, list):
        return {str(one).partition("=")[0].rstrip("+-"): "" for one in body}
    return body if isinstance(body, dict) else {}


class ChangeLog:
    """The two files. A full disk loses lines, and no request."""

    def __init__(self, changes: Path, refused: Path) -> None:
        changes.parent.mkdir(mode=0o700, exist_ok=True)
        self._changes, self._refused = _rotating(changes), _rotating(refused)

    def tween(self, handler: Handler) -> Handler:
        """The tween above devpi's transaction: what it records is committed."""

        def handle(request: Any) -> Any:
            response = handler(request)
            if request.method not in _SAFE:
                self._record(request, response.status_code)
            return response

        return handle

    def _record(self, request: Any, status: int) -> None:
        route = getattr(request.matched_route, "name", "")
        if (route.rstrip("/"), request.method) not in _ACTIONS or (status >= 400 and status not in _REFUSED):
            return
        # A refused upload may be large and unread.
        sent = {} if status in _REFUSED and _is_form(request) else sent_by(request)
        action, target, details = describe(request.method, route, request.matchdict or {}, sent, form=_is_form(request))
        if action == "log in" and status < 400:
            return
        change = Change(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            client=request.client_addr or "",
            user=str(sent.get("user", ""))[:LONGEST] if action == "log in" else request.environ.get(_WHO, ""),
            action=action,
            target=target[:LONGEST],
            details=[one[:LONGEST] for one in details if one][:50],
            status=status,
        )
        log = self._refused if status in _REFUSED else self._changes
        log.emit(logging.makeLogRecord({"msg": json.dumps(change)}))


def note_user(request: Any, identity: Any) -> None:
    """Record whom a change is made by, when devpi knows it. Asking devpi again would verify a token again."""
    request.environ[_WHO] = identity.username if identity is not None else ""


class _Rotating(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's own name
        threadlog.error("can't write %s", self.baseFilename)


def _rotating(path: Path) -> _Rotating:
    return _Rotating(path, maxBytes=LARGEST, backupCount=CHANGE_LOGS - 1, encoding="utf-8", delay=True)
