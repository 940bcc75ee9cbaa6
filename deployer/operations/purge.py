"""Remove a deployment, and delete its data on request if the data is proven to be its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.clients.client import Account
from deployer.clients.registry import CLIENT_FILES
from deployer.deployment.find import Deployment
from deployer.deployment.record import Applied, read_applied
from deployer.deployment.service import Service
from deployer.engines import open_engine
from deployer.engines.base import Engine
from deployer.errors import ConflictError, EngineError, Refused
from deployer.host.gather import data_facts
from deployer.host.state_dir import state_root
from deployer.operations.images import remove_former
from deployer.operations.recorded import recorded
from deployer.operations.start import STOP
from deployer.ownership import user_name
from deployer.plan.data import data_path
from deployer.plan.facts import Content, DataFacts
from deployer.spec import LABEL_NAME, PREVIOUS, THROW_AWAY, Container, EngineName, Mount

if TYPE_CHECKING:
    from deployer.ui.output import UI

GOING = ".purged"
"""Suffix of data that is renamed before its deletion, so that an interrupted deletion leaves nothing like data."""


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """Data that may be deleted: its mount, the engine of a volume, the facts of a directory."""

    mount: Mount
    engine: Engine | None
    facts: DataFacts | None


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


def is_there(data: Mount) -> bool:
    """Whether the data may exist: a volume, or an existing directory."""
    return data.kind == "volume" or Path(data.source).exists()


def chosen_data(name: str) -> str:
    """Return ``data`` of the last profile; empty if it is not recorded."""
    applied = read_applied(name)
    return str(applied.profile.get("data", "")) if applied else ""


def remove(deployment: Deployment, ui: UI) -> list[str]:
    """Stop and remove the containers of the deployment; return their names. Raises EngineError."""
    removed = []
    for name in (deployment.name, deployment.name + PREVIOUS, deployment.name + THROW_AWAY):
        container = deployment.engine.inspect(name)
        if container is not None and container.ours:
            with ui.working("server", f"stopping {name}"):
                deployment.engine.stop(name, timeout=STOP)
                deployment.engine.remove(name)
                if container.image_id:
                    remove_former(deployment.engine.images, container.image_id)
            ui.step("server", f"{name} stopped and removed ({deployment.engine.name})")
            removed.append(name)
    return removed


def admit(name: str, data: Mount, deployment: Deployment | None) -> Doomed:
    """Check that the data is this deployment's own and that nothing else uses it, before the first removal.

    Raises ConflictError, Refused.
    """
    applied = read_applied(name)
    if data.kind == "volume":
        return _admit_volume(name, data, deployment, applied)
    path = Path(data.source)
    facts = data_facts(path)
    if facts.content is Content.ABSENT:
        return Doomed(mount=data, engine=None, facts=facts)
    if facts.content is Content.UNREADABLE:
        raise ConflictError(f"{path} can't be read", hint=f"run the command as its owner {user_name(facts.uid)}")
    if facts.content not in (Content.DEVPI, Content.EMPTY) or facts.symlink_to is not None:
        raise Refused(
            f"{path} is not a devpi data directory; nothing was deleted",
            hint=f"ls -la {path}",
        )
    _check_owner(name, path, facts)
    _check_uuid(path, facts, applied)
    for engine_name, container in _users(path, own=_own(name, deployment)):
        label = container.labels.get(LABEL_NAME, "")
        raise ConflictError(
            f"{container.name} on {engine_name} uses {data.source}; nothing was deleted",
            hint=f"deployer down --name {label}"
            if label == container.name
            else f"{engine_name} rename {container.name} {label}",
        )
    if deployment is None and facts.in_use:
        raise _running(path, facts)
    return Doomed(mount=data, engine=None, facts=facts)


def _own(name: str, deployment: Deployment | None) -> frozenset[str]:
    """Return the IDs of the deployment's own containers."""
    if deployment is None:
        return frozenset()
    found = (deployment.engine.inspect(name + suffix) for suffix in ("", PREVIOUS, THROW_AWAY))
    return frozenset(container.id for container in found if container is not None)


def _check_owner(name: str, path: Path, facts: DataFacts) -> None:
    usage = facts.used_by
    if usage is not None and (usage.name, usage.state) != (name, str(state_root())):
        whose = "" if usage.uid == os.geteuid() else f" of {user_name(usage.uid)}"
        raise ConflictError(
            f"{path} belongs to the deployment {usage.name}{whose}; nothing was deleted",
            hint=f"deployer down --name {usage.name} --purge" + (f", as {user_name(usage.uid)}" if whose else ""),
        )


def _check_uuid(path: Path, facts: DataFacts, applied: Applied | None) -> None:
    kept = recorded(applied)
    if kept is not None and kept.source == str(path) and facts.uuid and facts.uuid != kept.uuid:
        raise ConflictError(
            f"{path} holds the data of server {facts.uuid}, not {kept.uuid}; nothing was deleted",
            hint=f"if it is not needed: rm -r {path}",
        )


def _running(path: Path, facts: DataFacts) -> ConflictError:
    name = facts.used_by.name if facts.used_by is not None else ""
    return ConflictError(
        f"a server runs on {path}; nothing was deleted",
        hint=f"deployer stop --name {name}" if name else "stop that server",
    )


def _users(path: Path, *, own: frozenset[str]) -> Iterator[tuple[EngineName, Container]]:
    """Yield the containers of any deployment, on any engine that answers, that use ``path`` or what is below it."""
    for engine_name in EngineName:
        try:
            containers = open_engine(engine_name).containers()
        except EngineError:
            continue  # not installed or down, so that it runs no container
        for container in containers:
            sources = (Path(mount.source) for mount in container.mounts if mount.kind == "bind" and not mount.read_only)
            if container.id not in own and any(_overlap(path, source) for source in sources):
                yield engine_name, container


def _overlap(one: Path, other: Path) -> bool:
    """Whether two paths are the same directory or nested, also through links and bind mounts."""
    return any(_same(one, parent) for parent in (other, *other.parents)) or any(
        _same(other, parent) for parent in one.parents
    )


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _admit_volume(name: str, data: Mount, deployment: Deployment | None, applied: Applied | None) -> Doomed:
    """Check a volume by the container that uses it, or by its label on the recorded engine. Raises Refused."""
    if deployment is not None:
        return Doomed(mount=data, engine=deployment.engine, facts=None)
    if applied is None or applied.engine not in set(EngineName):
        raise Refused(
            f"the engine of the volume {data.source} is not recorded; nothing was deleted",
            hint=f"on its engine: docker volume rm {data.source}",
        )
    engine = open_engine(EngineName(applied.engine))
    volume = engine.volume(data.source)
    if volume is not None and volume.labels.get(LABEL_NAME) != name:
        raise Refused(
            f"the volume {data.source} on {engine.name} does not carry the label of {name}; nothing was deleted",
            hint=f"if it is not needed: {engine.name} volume rm {data.source}",
        )
    return Doomed(mount=data, engine=engine, facts=None)


def purge(doomed: Doomed, ui: UI) -> bool:
    """Delete data that :func:`admit` checked; return whether there was any. Raises ConflictError."""
    data = doomed.mount
    if doomed.engine is not None:
        existed = doomed.engine.volume(data.source) is not None
        doomed.engine.volume_remove(data.source)
        if existed:
            ui.step("data", f"volume {data.source} deleted")
        return existed
    path = Path(data.source)
    for left in (_aside(path), path / GOING):  # leftovers of an interrupted purge
        shutil.rmtree(left, ignore_errors=True)
    facts = data_facts(path)
    if facts.content is Content.ABSENT:
        return False
    if facts.in_use:  # it started after admit()
        raise _running(path, facts)
    try:
        kept = _delete(path)
    except OSError as error:
        raise ConflictError(
            f"{error.filename} can't be deleted: {error.strerror}", hint=f"sudo rm -r {data.source}"
        ) from None
    ui.step("data", f"{data.source} " + (f"emptied ({kept}; the directory stays)" if kept else "deleted"))
    return True


def _delete(path: Path) -> str:
    """Delete a directory; if it must stay, delete its content and return the reason. Raises OSError."""
    if not path.is_mount():
        try:
            aside = path.rename(_aside(path))
        except OSError:
            kept = "no write permission in its parent"
        else:
            shutil.rmtree(aside)
            return ""
    else:
        kept = "a mount point"
    going = path / GOING
    going.mkdir(mode=0o700)
    for entry in list(path.iterdir()):
        if entry != going:
            entry.rename(going / entry.name)
    shutil.rmtree(going)
    return kept


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}{GOING}")


def dangling_client(deployment: Deployment | None) -> tuple[str, ...]:
    """Return a warning for each client that still points at the removed server."""
    if deployment is None or not deployment.url:
        return ()
    account = Account.of(os.environ)
    return tuple(
        f"{name} still installs from this server: {client.command} --undo"
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
