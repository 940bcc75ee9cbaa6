"""The status of a deployment, from its engine and its server.

Scripts call it often. It makes one engine call and one connection to the server with the standard library, since
importing an HTTP client takes longer than both.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.protocol import parsed

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.errors import DeployerError
    from deployer.spec import Container

TIMEOUT = 3.0
"""Timeout of one request to the server, in seconds."""
LIMIT = 1 << 20
"""Largest answer of the server, in bytes."""
SCAN = 0.3
"""Seconds for the size of the data directory; the size of a larger one is unknown."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """The status of a deployment. ``data``: the data of ``status --json``; ``answer``: the server's answers
    (:func:`ask`); ``error``: not ready, or drift."""

    data: dict[str, Any]
    deployment: Deployment | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: DeployerError | None = None


def status(name: str, *, engine: str = "") -> Status:
    """Ask the engine and the server for the status of ``name``. Raises EngineUnreachable, ConflictError."""
    from deployer.deployment.find import find
    from deployer.errors import NotReadyError

    deployment = find(name, engine=engine)
    if deployment is None:
        absent = NotReadyError(f"there is no deployment named {name!r}", hint="deployer up")
        return Status(data={"name": name, "state": "absent", "ready": False}, error=absent)
    answer = ask(deployment.url) if deployment.container.state == "running" else {}
    data = _data(deployment, answer)
    return Status(
        data=data,
        deployment=deployment,
        answer=answer,
        warnings=tuple(_confusion(answer)),
        error=_unready(deployment, data),
    )


def compared(found: Status, profile: str) -> Status:
    """Compare with ``profile`` and the recorded overrides; add ``compared_with`` and ``drift`` to the data."""
    if found.deployment is None or found.error is not None:
        return found
    data = dict(found.data)
    return replace(found, error=_drift(profile, found.deployment, data), data=data)


def ask(url: str) -> dict[str, Any]:
    """Ask the server for its identity and its users; return the answers by kind, empty if it does not answer."""
    from http.client import HTTPConnection, HTTPException
    from urllib.parse import urlsplit

    from deployer.protocol import IDENTITY_ROUTE

    parts = urlsplit(url)
    answer: dict[str, Any] = {}
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        # A devpi without deployer's plugin answers 404 to the first, and tells its uuid in its status.
        for path, key in ((IDENTITY_ROUTE, "identity"), ("/+status", "status"), ("/", "users")):
            if key == "status" and "identity" in answer:
                continue
            connection.request("GET", path, headers={"Accept": "application/json"})
            response = connection.getresponse()
            body = response.read(LIMIT)
            if response.status == 200:
                answer[key] = _object(parsed(body))
            elif response.status >= 500 or path == "/":
                return {}
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return answer


def _object(value: Any) -> dict[str, Any]:
    """Return ``value`` if it is a JSON object, else an empty one: the server may be a stranger."""
    return value if isinstance(value, dict) else {}


def _identity(answer: dict[str, Any]) -> dict[str, Any]:
    """Return UUID and version of the server; only deployer's plugin also reports whether it can write."""
    if "identity" in answer:
        return dict(answer["identity"])
    status = _object(_object(answer.get("status")).get("result"))
    return {"uuid": status.get("uuid"), "server_version": _object(status.get("versioninfo")).get("devpi-server")}


def _data(deployment: Deployment, answer: dict[str, Any]) -> dict[str, Any]:
    container, server_dir = deployment.container, deployment.server_dir
    identity = _identity(answer)
    users = _object(_object(answer.get("users")).get("result"))
    path = server_dir.path if server_dir else None
    expected = server_dir.uuid() if server_dir and answer and path else None
    return {
        "name": deployment.name,
        "profile": deployment.profile_name,
        "engine": str(deployment.engine.name),
        "network": str(container.network) if container.network else None,
        "state": _state(deployment, answer, identity, expected),
        "ready": bool(identity.get("uuid"))
        and not (server_dir is not None and server_dir.gone)
        and identity.get("writable", True)
        and (expected or identity.get("uuid")) == identity.get("uuid"),
        "url": deployment.url,
        "simple_url": deployment.simple_url,
        "server_version": identity.get("server_version"),
        "server_uuid": identity.get("uuid"),
        "offline": identity.get("offline"),
        "front": str(identity["front"]) if identity.get("front") else None,
        "tls": _tls(deployment),
        "image": container.image,
        "image_digest": container.image_id or None,
        "data_dir": server_dir.mount.source if server_dir else None,
        "data_bytes": _bytes(path) if path else None,
        "started_at": container.started_at or None,
        "indexes": sorted(
            f"{user}/{index}" for user, info in users.items() for index in _object(_object(info).get("indexes"))
        ),
        "drift": None,
    }


def _tls(deployment: Deployment) -> dict[str, Any] | None:
    """Return the address of HTTPS and when its certificate expires; None without HTTPS."""
    from deployer.spec import LABEL_TLS

    url = deployment.container.labels.get(LABEL_TLS)
    if url is None:
        return None
    from deployer.deployment.certificate import seen

    found = seen(url)
    public = deployment.applied.public_url if deployment.applied else ""
    days = None if found.left is None else found.left.days
    return {"url": public or url, "answers": found.answers, "names": list(found.names), "days": days}


def _confusion(answer: dict[str, Any]) -> Iterator[str]:
    """Warn of indexes that merge several mirrors, also of those that are not in a profile."""
    from types import SimpleNamespace

    from deployer.plan.order import merged, warning

    users = _object(_object(answer.get("users")).get("result"))
    indexes = {
        f"{user}/{name}": SimpleNamespace(type=str(_object(fields).get("type")), bases=_object(fields).get("bases"))
        for user, info in users.items()
        for name, fields in _object(_object(info).get("indexes")).items()
    }
    for index in indexes:
        if mirrors := merged(indexes, index):
            yield warning(index, mirrors)


def _state(deployment: Deployment, answer: dict[str, Any], identity: dict[str, Any], expected: str | None) -> str:
    state = deployment.container.state
    if state != "running":
        return "starting" if state == "restarting" else "stopped"
    if deployment.server_dir is not None and deployment.applied is not None and deployment.server_dir.gone:
        return "unhealthy"  # before the first successful `up` there may be no data
    if not answer:
        return "unhealthy" if _age(deployment.container.started_at) > 60 else "starting"
    if not identity.get("writable", True) or (expected and identity and expected != identity.get("uuid")):
        return "unhealthy"
    return "running"


def _age(started_at: str) -> float:
    """Return the seconds since an RFC 3339 time; ``fromisoformat`` rejects the nanoseconds of engines."""
    from datetime import UTC, datetime

    try:
        started = datetime.fromisoformat(started_at[:19]).replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return (datetime.now(UTC) - started).total_seconds()


_RESTING = {
    "stopped": ("is stopped", "run deployer up, or deployer logs for the cause"),
    "paused": ("is paused", "deployer start"),
    "created": ("was created and never started", "deployer up"),
    "lost": ("has ended", "deployer up"),
}
"""Words and cures by the state of a container that does not run."""


def _end(container: Container) -> str:
    """Return why a container does not run, as far as its engine reports it; a process has no exit code on record."""
    if container.oom_killed:
        return "out of memory (OOM-killed)"
    return container.error or ("" if container.exit_code is None else f"exit code {container.exit_code}")


def _unready(deployment: Deployment, data: dict[str, Any]) -> DeployerError | None:
    from deployer.errors import NotReadyError

    if data["ready"]:
        return None
    container, name = deployment.container, deployment.name
    if data["state"] in ("stopped", "starting") and (refused := _refusal(deployment)):
        return refused
    match data["state"]:
        case "stopped":
            why = f" ({ended})" if (ended := _end(container)) else ""
            words, cure = _RESTING.get(container.state, _RESTING["stopped"])
            return NotReadyError(f"{name} {words}{why}", hint=cure)
        case "starting":
            return NotReadyError(f"{name} is starting", hint="deployer logs -f")
        case "unhealthy" if deployment.server_dir is not None and deployment.server_dir.gone:
            return NotReadyError(
                f"the data of {name} is gone from {data['data_dir']} while its server runs",
                hint="restore it and run deployer restart --cold, or start with an empty index: deployer up --new-data",
            )
        case _ if not data["server_uuid"]:
            return NotReadyError(f"{name} runs, but does not answer at {deployment.url}", hint="deployer logs")
        case _ if deployment.server_dir and deployment.server_dir.uuid() != data["server_uuid"]:
            return NotReadyError(
                f"another server answers at {deployment.url}: it does not use the data of {name}",
                hint="deployer doctor",
            )
        case _:
            return NotReadyError(
                f"{name} answers, but can't write to its data directory {data['data_dir']}",
                hint="free disk space there and run: deployer restart",
            )


def _refusal(deployment: Deployment) -> DeployerError | None:
    """Return the refusal in the log of a server that does not start or restarts in a loop."""
    from deployer.readiness.last_words import refusal
    from deployer.readiness.watch import last_lines

    return refusal(deployment.name, last_lines(deployment.engine, deployment.name))


def _drift(profile: str, deployment: Deployment, data: dict[str, Any]) -> DeployerError | None:
    """Compare with the profile and recorded overrides; set ``compared_with`` and ``drift`` in ``data``."""
    from deployer.errors import DriftError
    from deployer.operations.differences import differences
    from deployer.operations.plan import due
    from deployer.operations.prepare import prepare
    from deployer.operations.recorded import deployed, spelt
    from deployer.operations.tls import differs

    ref, held = deployed(profile, deployment.applied)
    data["compared_with"] = {"profile": ref, "overrides": {override.key: override.value for override in held}}
    prepared = prepare(ref, deployment.name, overrides=held)
    data["drift"] = due(prepared)
    if not data["drift"]:
        return None
    details = differences(prepared) if "server" in data["drift"] else ()
    if "tls" in data["drift"] and (certificate := differs(prepared)) is not None:
        details += (f"tls: {certificate[0]}",)
    words = shlex.join(("deployer", "up", *spelt(ref, held, name=deployment.name)))
    return DriftError(
        f"the server differs from {comparison(data)}: {', '.join(data['drift'])}",
        hint=words,
        details=details,
    )


def comparison(data: dict[str, Any]) -> str:
    """Describe the profile and the overrides in ``compared_with``."""
    compared_with = data["compared_with"]
    keys = ", ".join(compared_with["overrides"])
    return f"the profile {compared_with['profile']}" + (f" with {keys} of the last `up`" if keys else "")


def _bytes(path: Path) -> int | None:
    """Return the bytes of all files below ``path``; None after ``SCAN`` seconds."""
    deadline = time.monotonic() + SCAN
    total, folders = 0, [os.fspath(path)]
    while folders:
        if time.monotonic() > deadline:
            return None
        try:
            for entry in os.scandir(folders.pop()):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total
