"""What runs, asked of the engine and of the server itself.

It is called often and by scripts, so it costs one call of the engine and one connection to the server, made with
the standard library: importing an HTTP client takes longer than both.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.errors import DeployerError

TIMEOUT = 3.0
"""Seconds that the server has for one answer."""
LIMIT = 1 << 20
SCAN = 0.3
"""Seconds that adding up the data directory may take; a larger one is told as unknown."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What runs. ``data``: as ``status --json`` prints it; ``answer``: what the server says, by kind (:func:`ask`);
    ``error``: why it is not ready, or differs."""

    data: dict[str, Any]
    deployment: Deployment | None = None
    answer: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    error: DeployerError | None = None


def status(name: str, *, engine: str = "") -> Status:
    """Ask the engine and the server what runs. Raises EngineUnreachable, ConflictError."""
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
    """Compare what runs with ``profile`` and the recorded overrides; the data says with what, and what differs."""
    if found.deployment is None or found.error is not None:
        return found
    data = dict(found.data)
    return replace(found, error=_drift(profile, found.deployment, data), data=data)


def ask(url: str) -> dict[str, Any]:
    """What the server says of itself: its identity, the names of its indexes; empty when it does not answer."""
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
                answer[key] = _object(json.loads(body))
            elif response.status >= 500 or path == "/":
                return {}
    except (OSError, HTTPException, ValueError):
        return {}
    finally:
        connection.close()
    return answer


def _object(value: Any) -> dict[str, Any]:
    """A stranger's JSON where an object should be; anything else says nothing."""
    return value if isinstance(value, dict) else {}


def _identity(answer: dict[str, Any]) -> dict[str, Any]:
    """uuid and version of what answers; whether it can write is only known of a server with deployer's plugin."""
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


def _confusion(answer: dict[str, Any]) -> Iterator[str]:
    """What is to be said of indexes that merge several mirrors, whoever made them so."""
    from types import SimpleNamespace

    from deployer.plan.order import merged, warning

    users = _object(_object(answer.get("users")).get("result"))
    indexes = {
        f"{user}/{name}": SimpleNamespace(type=str(_object(told).get("type")), bases=_object(told).get("bases"))
        for user, info in users.items()
        for name, told in _object(_object(info).get("indexes")).items()
    }
    for index in indexes:
        if mirrors := merged(indexes, index):
            yield warning(index, mirrors)


def _state(deployment: Deployment, answer: dict[str, Any], identity: dict[str, Any], expected: str | None) -> str:
    state = deployment.container.state
    if state != "running":
        return "starting" if state == "restarting" else "stopped"
    if deployment.server_dir is not None and deployment.applied is not None and deployment.server_dir.gone:
        return "unhealthy"  # before its first `up` has succeeded it may not have any yet
    if not answer:
        return "unhealthy" if _age(deployment.container.started_at) > 60 else "starting"
    if not identity.get("writable", True) or (expected and identity and expected != identity.get("uuid")):
        return "unhealthy"
    return "running"


def _age(started_at: str) -> float:
    """Seconds since an RFC 3339 time; engines give nanoseconds, which ``fromisoformat`` does not take."""
    from datetime import UTC, datetime

    try:
        started = datetime.fromisoformat(started_at[:19]).replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return (datetime.now(UTC) - started).total_seconds()


def _unready(deployment: Deployment, data: dict[str, Any]) -> DeployerError | None:
    from deployer.errors import NotReadyError

    if data["ready"]:
        return None
    container, name = deployment.container, deployment.name
    if data["state"] in ("stopped", "starting") and (refused := _refusal(deployment)):
        return refused
    match data["state"]:
        case "stopped":
            why = (
                "killed for want of memory"
                if container.oom_killed
                else container.error or f"exit code {container.exit_code}"
            )
            return NotReadyError(f"{name} is stopped ({why})", hint="deployer up, or deployer logs to see why")
        case "starting":
            return NotReadyError(f"{name} is starting", hint="try again in a moment; deployer logs -f shows it")
        case "unhealthy" if deployment.server_dir is not None and deployment.server_dir.gone:
            return NotReadyError(
                f"the data of {name} is gone from {data['data_dir']} while its server runs",
                hint="restore it there, then deployer restart; to begin with an empty index: deployer up --new-data",
            )
        case _ if not data["server_uuid"]:
            return NotReadyError(f"{name} runs, but does not answer at {deployment.url}", hint="deployer logs")
        case _ if deployment.server_dir and deployment.server_dir.uuid() != data["server_uuid"]:
            return NotReadyError(
                f"what answers at {deployment.url} is not {name}: it runs on other data", hint="deployer doctor"
            )
        case _:
            return NotReadyError(
                f"{name} answers, but can't write to its data directory {data['data_dir']}",
                hint="free some space there, then deployer restart",
            )


def _refusal(deployment: Deployment) -> DeployerError | None:
    """What the server said, if it will not run: it is not there, or its engine tries again and again."""
    from deployer.readiness.last_words import refusal
    from deployer.readiness.watch import last_lines

    return refusal(deployment.name, last_lines(deployment.engine, deployment.name))


def _drift(profile: str, deployment: Deployment, data: dict[str, Any]) -> DeployerError | None:
    """Compare with the profile, and what was put over it; ``data`` tells with what, and what differs."""
    from deployer.errors import DriftError
    from deployer.operations.plan import due
    from deployer.operations.prepare import prepare
    from deployer.operations.recorded import deployed, spelt

    ref, held = deployed(profile, deployment.applied)
    data["compared_with"] = {"profile": ref, "overrides": {override.key: override.value for override in held}}
    data["drift"] = due(prepare(ref, deployment.name, overrides=held))
    if not data["drift"]:
        return None
    words = shlex.join(("deployer", "up", *spelt(ref, held, name=deployment.name)))
    return DriftError(f"what runs differs from {comparison(data)}: {', '.join(data['drift'])}", hint=words)


def comparison(data: dict[str, Any]) -> str:
    told = data["compared_with"]
    over = ", ".join(told["overrides"])
    return f"the profile {told['profile']}" + (f" with {over} as given to the last `up`" if over else "")


def _bytes(path: Path) -> int | None:
    """Bytes of all files below ``path``, or ``None`` when there are too many to add up in passing."""
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
