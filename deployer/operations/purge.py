"""Remove a deployment, and delete its data on request."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from deployer.clients.client import Account
from deployer.clients.registry import CLIENT_FILES
from deployer.deployment.find import Deployment
from deployer.deployment.record import read_applied
from deployer.deployment.service import Service
from deployer.errors import ConflictError
from deployer.host.gather import data_facts
from deployer.operations import lifetime
from deployer.operations.admit import Doomed, check_stopped
from deployer.operations.images import remove_former
from deployer.operations.start import STOP
from deployer.plan.data import data_path
from deployer.plan.facts import Content, DataFacts
from deployer.spec import PREVIOUS, THROW_AWAY, Mount

if TYPE_CHECKING:
    from deployer.ui.output import UI

GOING = ".purged"
"""Suffix of data that is renamed before its deletion, so that an interrupted deletion leaves nothing like data."""
KILLED = 1.0
"""Seconds in which the kernel ends the processes of a killed server."""


def data_of(name: str, deployment: Deployment | None) -> Mount | None:
    """Return the data of a deployment: from its container, else from the last profile."""
    if deployment is not None:
        return deployment.server_dir.mount if deployment.server_dir else None
    applied, choice = read_applied(name), chosen_data(name)
    if not choice:
        return None
    if applied is not None and applied.data_source:
        kind = "bind" if applied.data_source.startswith("/") else "volume"
        return Mount(kind=kind, source=applied.data_source, target="/data")
    path = data_path(choice, name=name, home=Path.home(), uid=os.getuid())
    if path is None:
        return Mount(kind="volume", source=choice.removeprefix("volume:"), target="/data")
    return Mount(kind="bind", source=str(path), target=str(path))


def is_there(data: Mount, deployment: Deployment | None) -> bool:
    """Whether the data exists, as far as this user and the engine of the deployment can tell."""
    if data.kind == "volume":
        return deployment is None or deployment.engine.volume(data.source) is not None
    try:
        Path(data.source).stat()
    except PermissionError:
        return True  # unreadable is not absent
    except OSError:
        return False
    return True


def throw_away(name: str, data: Mount | None) -> bool:
    """Whether ``data`` is what the last ``up`` made for ``data: temp``; other data of the deployment is not."""
    if data is None:
        return False
    if data == lifetime.made(name):
        return True
    applied = read_applied(name)
    return applied is not None and applied.profile.get("data") == "temp" and data.source == applied.data_source


def chosen_data(name: str) -> str:
    """Return ``data`` of the last profile; empty if it is not recorded."""
    applied = read_applied(name)
    return str(applied.profile.get("data", "")) if applied else ""


def remove(deployment: Deployment, ui: UI, *, at_once: bool = False) -> list[str]:
    """Stop and remove the containers of the deployment; return their names. ``at_once``: kill them.

    Raises EngineError.
    """
    removed = []
    for name in (deployment.name, deployment.name + PREVIOUS, deployment.name + THROW_AWAY):
        container = deployment.engine.inspect(name)
        if container is not None and container.ours:
            with ui.working("server", f"stopping {name}"):
                deployment.engine.stop(name, timeout=timedelta(0) if at_once else STOP)
                deployment.engine.remove(name)
                if container.image_id:
                    remove_former(deployment.engine.images, container.image_id)
            ui.step("server", f"{name} stopped and removed ({deployment.engine.name})")
            removed.append(name)
    return removed


def purge(doomed: Doomed, ui: UI) -> bool:
    """Delete data that :func:`admit` checked; return whether there was any. Raises ConflictError, Refused."""
    data = doomed.mount
    if doomed.engine is not None:
        existed = doomed.engine.volume(data.source) is not None
        doomed.engine.volume_remove(data.source)
        if existed:
            ui.step("data", f"volume {data.source} deleted")
        return existed
    path = Path(data.source)
    facts = data_facts(path)
    for left in (_aside(path), path / GOING):  # leftovers of an interrupted purge
        if left.is_dir() and not left.is_symlink() and left.stat().st_uid in (facts.uid, os.geteuid()):
            _delete(left)
    if facts.content is Content.ABSENT:
        return False
    _wait_stopped(path, facts)  # a server may have started after admit()
    kept = _delete_data(path)
    ui.step("data", f"{data.source} " + (f"emptied ({kept}; the directory stays)" if kept else "deleted"))
    return True


def _wait_stopped(path: Path, facts: DataFacts) -> None:
    """As :func:`check_stopped`, but give the processes of a killed server time to end."""
    deadline = time.monotonic() + KILLED
    while True:
        try:
            return check_stopped(path, facts)
        except ConflictError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _delete_data(path: Path) -> str:
    """Delete a directory; if it must stay, delete its content and return the reason. Raises ConflictError."""
    if not path.is_mount():
        try:
            aside = path.rename(_aside(path))
        except OSError:
            kept = "no write permission in its parent"
        else:
            _delete(aside)
            return ""
    else:
        kept = "a mount point"
    going = path / GOING
    try:
        going.mkdir(mode=0o700)
        for entry in list(path.iterdir()):
            if entry != going:
                entry.rename(going / entry.name)
    except OSError as error:
        raise _undeletable(path, error) from None
    _delete(going)
    return kept


def _delete(path: Path) -> None:
    """Delete a directory. Raises ConflictError."""
    try:
        shutil.rmtree(path)
    except OSError as error:
        raise _undeletable(path, error) from None


def _undeletable(path: Path, error: OSError) -> ConflictError:
    return ConflictError(f"{path} can't be deleted: {error.strerror}", hint=f"sudo rm -r {quote(str(path))}")


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{GOING}")


def dangling_client(deployment: Deployment | None) -> tuple[str, ...]:
    """Return a warning for each client that still points at the removed server."""
    if deployment is None or not deployment.url:
        return ()
    account = Account.of(os.environ)
    return tuple(
        f"{name} still installs from this server: {client.undo}"
        for name, client in CLIENT_FILES.items()
        if client.read(account).effective(client.index_key).value.startswith(deployment.url + "/")
    )


def left_service(name: str) -> tuple[str, ...]:
    """Warn of a unit that would start the removed server at boot."""
    for scope in ("system", "user"):
        service = Service.of(name, scope=scope, home=Path.home(), env=os.environ)
        if service.path.exists():
            return (f"{service.path} still starts it at boot: deployer install-service --scope {scope} --undo",)
    return ()
