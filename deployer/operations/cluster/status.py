"""The status of a cluster: of each member, and of all together."""

from __future__ import annotations

import urllib.request
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deployer.deployment.record import read_applied
from deployer.errors import DeployerError, DriftError, NotReadyError
from deployer.operations.cluster.standing import Standing, standing
from deployer.protocol import LIVE_ROUTE
from deployer.ui.table import table

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster

SECONDS = 5.0
HEAD = ("member", "role", "state", "serial", "lag", "files", "version", "where")


def status(cluster: Cluster, name: str) -> tuple[dict[str, Any], tuple[Standing, ...], DeployerError | None]:
    """The data of ``status --json``, the members, and why the cluster is not ready. Raises EngineError."""
    identity, members, applied = cluster.identity(), standing(cluster), read_applied(name)
    if not members:
        data = {"name": name, "state": "absent", "ready": False, "members": []}
        return data, (), NotReadyError(f"there is no deployment named {name!r}", hint="deployer up")
    primary = identity.primary if identity is not None else 0
    uuid = identity.uuid if identity is not None else ""
    url = cluster.address()
    wrong = trouble(members, primary) or silent(url)
    data = {
        "name": name,
        "profile": applied.profile_name if applied else "",
        "engine": applied.engine if applied else str(cluster.place),
        "state": _state(members, primary),
        "ready": wrong is None,
        "url": url,
        "simple_url": applied.simple_url if applied else "",
        "server_version": next((one.status.server_version for one in members if one.status), None),
        "server_uuid": uuid or None,
        "place": str(cluster.place),
        "tls": tls(cluster),
        "primary": primary,
        "members": [one.data for one in members],
        "drift": None,
    }
    return data, members, wrong


def tls(cluster: Cluster) -> dict[str, Any] | None:
    """The address of HTTPS and when its certificate expires, as for a single server; None without HTTPS."""
    https = cluster.https()
    if https is None:
        return None
    from deployer.deployment.certificate import seen

    found = seen(https.url)
    days = None if found.left is None else found.left.days
    return {"url": https.public, "answers": found.answers, "names": list(found.names), "days": days}


def trouble(members: Sequence[Standing], primary: int) -> NotReadyError | None:
    """Why not all members are in sync; None when they are."""
    failing = [one for one in members if not one.ready]
    if not failing:
        return None
    first = next((one for one in failing if one.number == primary), failing[0])
    role = "the primary" if first.number == primary else "a replica"
    cure = (
        f"start it: deployer up; if its host or disk is lost: deployer cluster promote {_other(members, primary)}"
        if first.number == primary
        else "deployer up"
    )
    lines = tuple(f"member {one.number}: {one.text}" for one in failing if one is not first)
    return NotReadyError(f"member {first.number}, {role}, is not in sync: {first.text}", hint=cure, details=lines)


def silent(url: str) -> NotReadyError | None:
    """Why clients are not answered; None where they are, or where the place knows no address for them."""
    if not url or (why := unanswered(url)) is None:
        return None
    return NotReadyError(f"the members run, but {url} does not answer: {why}", hint="deployer up")


def unanswered(url: str) -> str | None:
    """Why nothing answers at an address for clients; None when something does."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}{LIVE_ROUTE}", timeout=SECONDS):
            return None
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


def _other(members: Sequence[Standing], primary: int) -> int:
    return next((one.number for one in members if one.number != primary), primary)


def _state(members: Sequence[Standing], primary: int) -> str:
    if all(one.status is None and one.member.state != "running" for one in members):
        return "stopped"
    return "running" if all(one.ready for one in members) else "unhealthy"


def text(data: dict[str, Any], members: Sequence[Standing]) -> str:
    """The status as people read it."""
    if not members:
        return f"{data['name']}: absent"
    rows = {
        "state": f"{data['state']}{'' if data['ready'] else ', not ready'} (profile {data['profile']})",
        "engine": data["engine"],
        "url": data["url"],
        "index": data["simple_url"],
        "tls": data["tls"]["url"] if data["tls"] else "",
    }
    head = "\n".join(f"{key.ljust(10)}{value}" for key, value in rows.items() if value)
    return f"{head}\n\n{table(HEAD, [row(one) for one in members])}"


def row(one: Standing) -> tuple[str, ...]:
    """A member in the table of :data:`HEAD`."""
    found = one.status
    if found is None:
        return (str(one.number), one.role, one.text, "", "", "", "", one.member.where)
    lag = "" if found.lag_seconds is None or one.role == "primary" else f"{found.lag_seconds:.0f} s"
    files = "in sync" if found.files_in_sync else f"{found.files_missing} missing"
    serial = str(found.serial) if found.serial == found.primary_serial else f"{found.serial}/{found.primary_serial}"
    return (str(one.number), one.role, one.text, serial, lag, files, found.version, one.member.where)


def compared(data: dict[str, Any], due: Sequence[str]) -> DeployerError | None:
    """Add ``drift`` to the data. ``due``: what ``up`` would change."""
    data["drift"] = list(due)
    if not due:
        return None
    return DriftError(f"the members differ from the profile: {due[0]}", hint="deployer up", details=tuple(due[1:]))
