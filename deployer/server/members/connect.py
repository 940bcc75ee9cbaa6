"""Connects what a primary or a replica has besides a server that is alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from deployer.server.devpi import replication
from deployer.server.guard.owners import Owners
from deployer.server.guard.watched import MaliciousFile
from deployer.server.members.files import ReplicaCompanions, ReplicaFiles
from deployer.server.members.following import Following
from deployer.server.members.gate import Gate
from deployer.server.members.messages import State
from deployer.server.members.pages import Copying, Journal
from deployer.server.members.primary import Primary
from deployer.server.members.replicas import PrimaryTween, Replicas
from deployer.server.members.role import Role
from deployer.server.members.source import ReplicaSource
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.mirrors.companions import Companions
from deployer.server.mirrors.files import RemoteFiles
from deployer.server.mirrors.indexes import Indexes
from deployer.server.mirrors.page import is_archive, storable
from deployer.server.mirrors.source import Source
from deployer.server.mirrors.store import UpstreamPages
from deployer.server.pages.changelog import Changelog
from deployer.server.pages.offline import OfflineSwitch
from deployer.server.pages.store import PageStore
from deployer.server.secret_files import Private, read_text, remove, write_private
from deployer.server.upstream.client import NoAnswer
from deployer.server.upstream.health import Upstreams

Factory = Callable[[Any, Any], Any]


class Alone:
    """What a server has that is alone; the parts that have another form for a replica."""

    def source(self, *args: Any, **words: Any) -> Source:
        return Source(*args, **words)

    def files(self, *args: Any) -> RemoteFiles:
        return RemoteFiles(*args)

    def companions(self, *args: Any) -> Companions:
        return Companions(*args)


class OfReplica(Alone):
    """The same of a replica: all come from its primary."""

    def __init__(
        self, xom: Any, role: Role, upstreams: Upstreams, private: Private, switch: OfflineSwitch, *, has_room: Any
    ) -> None:
        self._xom, self._private = xom, private
        self.primary = Primary(
            role.primary_url,
            upstreams,
            lambda: replication.proof(xom),
            timeout=xom.config.request_timeout,
            has_room=has_room,
        )
        self._may_ask = lambda: role.upstream and not switch.on
        self._on_demand = role.on_demand

    def source(self, *args: Any, **words: Any) -> Source:
        return ReplicaSource(*args, **words, primary=self.primary)

    def files(self, *args: Any) -> RemoteFiles:
        return ReplicaFiles(
            *args,
            primary=self.primary,
            arrived=self._private.arrived,
            may_ask=self._may_ask,
            on_demand=self._on_demand,
        )

    def companions(self, *args: Any) -> Companions:
        return ReplicaCompanions(*args, primary=self.primary, may_ask=self._may_ask)


def follow(
    xom: Any,
    parts: OfReplica,
    source: Source,
    files: Any,
    indexes: Indexes,
    store: PageStore,
    changelog: Changelog,
    switch: OfflineSwitch,
    malicious: MaliciousFile,
    owners: Owners,
) -> Gate:
    """Have this replica follow its primary; the gate before all requests."""
    private = Private.of(Path(xom.config.server_path))

    def take(state: State, releases: str | None) -> None:
        if releases is not None and state.malicious != malicious.latest.digest:
            write_private(private.malicious, releases) if releases else remove(private.malicious)
            malicious.refresh()
        if state.offline != switch.on:
            switch.turn(offline=state.offline, store=store, changelog=changelog)

    def page(name: str, project: str) -> list[dict[str, Any]] | None:
        mirror = indexes.mirror(name)
        try:
            found = None if mirror is None else source.get(mirror, project).read()
        except NoAnswer as error:
            raise replication.Silent(str(error)) from None
        return None if found is None else [storable(file) for file in found.each() if is_archive(file["filename"])]

    setattr(xom, replication.PAGE, page)

    def copy(name: str, project: str) -> None:
        indexes.refresh(store.configured)
        mirror = indexes.mirror(name)
        if mirror is not None and isinstance(source, ReplicaSource):
            source.copy(mirror, project)

    following = Following(xom, private, parts.primary, store, files, take, owners, Copying(copy))
    following.start()
    return Gate(following, lambda: store.seen, lambda index: indexes.mirror(index) is not None)


def lead(
    xom: Any,
    role: Role,
    source: Source,
    indexes: Indexes,
    store: PageStore,
    changelog: Changelog,
    switch: OfflineSwitch,
    malicious: MaliciousFile,
    owners: Owners,
    pages: UpstreamPages,
    bulkhead: Bulkhead,
) -> PrimaryTween:
    """Have replicas follow this primary; the tween before all requests."""
    private = Private.of(Path(xom.config.server_path))
    replicas = Replicas(private.members, write_wait=role.write_wait)

    def state() -> tuple[State, str]:
        return State(offline=switch.on, malicious=malicious.latest.digest), read_text(private.malicious) or ""

    def kept() -> Iterator[tuple[str, str]]:
        for mirror in indexes.all(configured=store.configured):
            yield from ((mirror, project) for project in pages.projects(mirror))

    journal, written = Journal(kept), pages.on_write

    def on_write(mirror: str, project: str, size: int, url: str) -> None:
        written(mirror, project, size, url)
        journal.note(mirror, project)

    pages.on_write = on_write
    switch.on_turn = lambda: replicas.wait_for_state(state()[0])
    return PrimaryTween(
        replicas,
        source,
        indexes,
        bulkhead,
        serial=lambda: changelog.serial,
        configured=lambda: store.configured,
        state=state,
        timeout=xom.config.request_timeout,
        forget=store.forget,
        owners=owners,
        journal=journal,
        uuid=xom.config.nodeinfo["uuid"],
    )
