"""Check that data may be deleted: it is the deployment's own, and nothing else uses it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from deployer.deployment.find import Deployment
from deployer.deployment.record import Applied, read_applied
from deployer.engines import open_engine
from deployer.engines.base import Engine
from deployer.errors import ConflictError, EngineError, Refused
from deployer.host.gather import data_facts, strange_below
from deployer.host.state_dir import state_root
from deployer.host.untrusted import Untrusted, locked
from deployer.operations.recorded import recorded
from deployer.ownership import user_name
from deployer.plan.data import check_strangers
from deployer.plan.facts import Content, DataFacts, Usage
from deployer.protocol import PrivateFile
from deployer.spec import LABEL_NAME, PREVIOUS, THROW_AWAY, Container, EngineName, Mount, State, features, of_another


@dataclass(frozen=True, kw_only=True)
class Doomed:
    """Data that may be deleted: its mount, and the engine of a volume."""

    mount: Mount
    engine: Engine | None


def admit(name: str, data: Mount, deployment: Deployment | None, *, temporary: bool = False) -> Doomed:
    """Check that the data is this deployment's own and that nothing else uses it, before the first removal.

    ``temporary``: ``up`` has made it to be thrown away. Where a process uses it, no container engine is asked then:
    that takes longer than all the rest, and the directory names its deployment.

    Raises ConflictError, Refused.
    """
    applied = read_applied(name)
    if data.kind == "volume":
        return _admit_volume(name, data, deployment, applied)
    path = Path(data.source)
    facts = data_facts(path)
    if facts.content is Content.ABSENT:
        return Doomed(mount=data, engine=None)
    if facts.content is Content.UNREADABLE:
        raise ConflictError(f"{path} can't be read", hint=f"run the command as its owner {user_name(facts.uid)}")
    if facts.content not in (Content.DEVPI, Content.EMPTY) or facts.symlink_to is not None:
        raise Refused(f"{path} is not a devpi data directory; nothing was deleted", hint=f"ls -la {quote(str(path))}")
    if facts.read_only:
        raise Refused(
            f"the file system of {path} is mounted read-only; nothing was deleted",
            hint=f"mount -o remount,rw {quote(str(facts.parent))}",
        )
    if os.geteuid() != 0:  # this user can't delete what root restored, nor read what it says
        check_strangers(facts, uid=facts.uid, gid=facts.gid)
    _check_owner(name, path, facts, deployment)
    _check_identity(path, facts, deployment, applied, known=temporary)
    alone = temporary and deployment is not None and not features(deployment.engine.name).containers
    for engine_name, container in () if alone else _users(lambda mount: _overlap(path, mount), deployment, applied):
        raise _used(data.source, engine_name, container)
    if deployment is None and facts.used_by is None:
        _check_recorded_once(
            name,
            str(path),
            lambda one: one.data_source.startswith("/") and _same(path, Path(one.data_source)),
            cure=f"rm -r {quote(str(path))}",
        )
    _check_content(path)
    if not _runs(deployment):
        check_stopped(path, facts)
    return Doomed(mount=data, engine=None)


def _runs(deployment: Deployment | None) -> bool:
    return deployment is not None and deployment.container.state not in (State.CREATED, State.STOPPED, State.LOST)


def _used(source: str, engine: EngineName, container: Container) -> ConflictError:
    label = container.labels.get(LABEL_NAME, "")
    return ConflictError(
        f"{container.name} on {engine} uses {source}; nothing was deleted",
        hint=f"deployer down --name {quote(label)}"
        if label == container.name
        else f"{engine} rename {quote(container.name)} {quote(label)}",
    )


def _own(deployment: Deployment | None) -> frozenset[str]:
    """Return the IDs of the deployment's own containers."""
    if deployment is None:
        return frozenset()
    found = (deployment.engine.inspect(deployment.name + suffix) for suffix in ("", PREVIOUS, THROW_AWAY))
    return frozenset(container.id for container in found if container is not None)


def _check_owner(name: str, path: Path, facts: DataFacts, deployment: Deployment | None) -> None:
    """Raise ConflictError when the directory says that another deployment used it last."""
    usage = facts.used_by
    if usage is None or _is_user(usage, name, deployment):
        return
    other = usage.uid != os.geteuid()
    whose = f" of {user_name(usage.uid)}" if other else ""
    where = "" if other or usage.state == str(state_root()) else f"DEPLOYER_STATE_DIR={quote(usage.state)} "
    # The server's user can write this name: the hint deletes nothing.
    raise ConflictError(
        f"{path} belongs to the deployment {usage.name}{whose}; nothing was deleted",
        hint=f"{where}deployer status --name {quote(usage.name)}" + (f", as {user_name(usage.uid)}" if other else ""),
    )


def _is_user(usage: Usage, name: str, deployment: Deployment | None) -> bool:
    """Whether ``usage`` is this deployment's. On a container engine, its name is one for all state directories."""
    shared = deployment is not None and features(deployment.engine.name).containers and usage.uid == os.geteuid()
    return usage.name == name and (usage.state == str(state_root()) or shared)


def _check_identity(
    path: Path, facts: DataFacts, deployment: Deployment | None, applied: Applied | None, *, known: bool
) -> None:
    """Raise ConflictError, Refused when the data is another server's, or nothing proves whose it is."""
    kept = recorded(applied)
    if kept is not None and _same(Path(kept.source), path) and facts.uuid and facts.uuid != kept.uuid:
        raise ConflictError(
            f"{path} holds the data of server {facts.uuid}, not {kept.uuid}; nothing was deleted",
            hint=f"if it is not needed: rm -r {quote(str(path))}",
        )
    known = (
        known or deployment is not None or facts.used_by is not None or (kept is not None and facts.uuid == kept.uuid)
    )
    if not known and facts.content is not Content.EMPTY:
        raise Refused(
            f"nothing proves that {path} is the data of this deployment; nothing was deleted",
            hint=f"if it is not needed: rm -r {quote(str(path))}",
        )


def _check_content(path: Path) -> None:
    """Raise Refused for content that is not the server's own."""
    if (strange := strange_below(path)) is not None:
        raise Refused(
            f"{strange} is not part of the index in {path}; nothing was deleted",
            hint=f"move {quote(str(strange))} away",
        )


def check_stopped(path: Path, facts: DataFacts) -> None:
    """Raise ConflictError when a server runs on the directory, Refused when that is unknown."""
    try:
        running = locked(path, PrivateFile.LOCK.relative)
    except Untrusted as error:
        raise Refused(f"{error}; nothing was deleted", hint=f"ls -la {quote(str(path))}") from None
    except OSError as error:
        raise ConflictError(
            f"the lock in {path} can't be read: {error.strerror}; nothing was deleted",
            hint=f"run the command as its owner {user_name(facts.uid)}",
        ) from None
    if running:
        name = facts.used_by.name if facts.used_by is not None else ""
        raise ConflictError(
            f"a server runs on {path}; nothing was deleted",
            hint=f"deployer stop --name {quote(name)}" if name else "stop that server",
        )


def _users(
    uses: Callable[[Mount], bool], deployment: Deployment | None, applied: Applied | None
) -> Iterator[tuple[EngineName, Container]]:
    """Yield the containers of other deployments, on any engine that answers, with a writable mount that ``uses`` has.

    Raises EngineUnreachable when the recorded engine does not answer.
    """
    own = _own(deployment)
    for engine_name in EngineName:
        try:
            containers = open_engine(engine_name).containers()
        except EngineError:
            if applied is not None and applied.engine == engine_name:
                raise
            continue  # not installed or down: the lock tells whether a container of it still runs
        for container in containers:
            if container.id not in own and any(uses(mount) for mount in container.mounts if not mount.read_only):
                yield engine_name, container


def _overlap(path: Path, mount: Mount) -> bool:
    """Whether a directory is mounted, or one in it or above it; also through links and bind mounts."""
    if mount.kind != "bind":
        return False
    source = Path(mount.source)
    return any(_same(path, above) for above in (source, *source.parents)) or any(
        _same(source, above) for above in path.parents
    )


def _same(one: Path, other: Path) -> bool:
    try:
        return one == other or one.samefile(other)
    except OSError:
        return False


def _admit_volume(name: str, data: Mount, deployment: Deployment | None, applied: Applied | None) -> Doomed:
    """Check a volume by the container that uses it, or by its labels on the recorded engine.

    Raises ConflictError, Refused.
    """
    engine = deployment.engine if deployment is not None else _recorded_engine(data.source, applied)
    volume = engine.volume(data.source)
    if volume is not None and deployment is None:
        if volume.labels.get(LABEL_NAME) != name or of_another(volume.labels, os.geteuid()):
            raise Refused(
                f"the volume {data.source} on {engine.name} does not carry the labels of {name}; nothing was deleted",
                hint=f"if it is not needed: {engine.name} volume rm {data.source}",
            )
        _check_recorded_once(
            name,
            f"the volume {data.source}",
            lambda one: (one.engine, one.data_source) == (engine.name, data.source),
            cure=f"{engine.name} volume rm {data.source}",
        )
    own = _own(deployment)
    for container in engine.containers():
        if container.id not in own and any(_is_volume(mount, data.source) for mount in container.mounts):
            raise _used(f"the volume {data.source}", engine.name, container)
    return Doomed(mount=data, engine=engine)


def _recorded_engine(volume: str, applied: Applied | None) -> Engine:
    if applied is None or applied.engine not in set(EngineName):
        raise Refused(
            f"the engine of the volume {volume} is not recorded; nothing was deleted",
            hint=f"on its engine: docker volume rm {volume}",
        )
    return open_engine(EngineName(applied.engine))


def _is_volume(mount: Mount, volume: str) -> bool:
    return mount.kind == "volume" and mount.source == volume


def _check_recorded_once(name: str, what: str, has: Callable[[Applied], bool], *, cure: str) -> None:
    """Raise ConflictError when another deployment of this user has the same data on record. ``what``: the noun for it.

    Of several, nothing tells which used it last: the label of a volume names the first.
    """
    for path in sorted(state_root().glob("*/applied.json")):
        other = path.parent.name
        applied = read_applied(other) if other != name else None
        if applied is not None and has(applied):
            raise ConflictError(
                f"{what} is also the data of the deployment {other}; nothing was deleted",
                hint=f"if it is not needed: {cure}",
            )
