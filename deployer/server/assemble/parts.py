"""The parts of the server, made and connected with each other in three steps: core, mirrors, inventory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer import __version__
from deployer.server import secret_files
from deployer.server.challenge import Challenge
from deployer.server.devpi import guarded, mirror_names, ordered, push
from deployer.server.devpi.installed import server_version
from deployer.server.devpi.mirror_names import MirrorNames
from deployer.server.guard.grants import Grants
from deployer.server.guard.owners import Owners
from deployer.server.guard.readers import Readers
from deployer.server.guard.rules import Rules
from deployer.server.guard.sendable import Sendable
from deployer.server.guard.watched import MaliciousFile
from deployer.server.inventory import budget
from deployer.server.inventory import database as inventory
from deployer.server.inventory.budget import Budget
from deployer.server.inventory.comparison import Comparison, Places
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.pinned import Pinned
from deployer.server.inventory.prune import Pruner
from deployer.server.inventory.watching import Watching
from deployer.server.members import role as roles
from deployer.server.members.connect import Alone, OfReplica
from deployer.server.members.role import Role
from deployer.server.middleware.canonical import CANONICAL
from deployer.server.mirrors import for_devpi, rules
from deployer.server.mirrors.canonical_links import CanonicalLinks
from deployer.server.mirrors.companions import Companions
from deployer.server.mirrors.files import Found, RemoteFiles
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.mirrors.source import Source
from deployer.server.mirrors.store import UpstreamPages
from deployer.server.mirrors.takeovers import Takeovers
from deployer.server.nginx import memory
from deployer.server.pages.changelog import Changelog
from deployer.server.pages.offline import OfflineSwitch
from deployer.server.pages.store import LIMIT_BYTES, PageStore
from deployer.server.secret_files import Private
from deployer.server.upstream.body import LARGEST_LIST, LARGEST_PAGE
from deployer.server.upstream.client import Client
from deployer.server.upstream.credentials import Credentials
from deployer.server.upstream.health import Upstreams


@dataclass(frozen=True)
class Core:
    """What everything else needs: devpi, our own files, the switch, the page store, the indexes.

    ``fronted``: nginx answers clients. ``parts``: of a server alone, or of a replica.
    """

    xom: Any
    config: Any
    private: Private
    role: Role
    parts: Alone | OfReplica
    challenge: Challenge
    rules: MirrorRules
    switch: OfflineSwitch
    upstreams: Upstreams
    changelog: Changelog
    malicious: MaliciousFile
    limit: Budget
    store: PageStore
    indexes: Indexes
    client: Client
    links: CanonicalLinks
    fronted: bool

    @property
    def files(self) -> Path:
        """devpi's directory of files."""
        return Path(self.config.server_path) / "+files"

    def offline(self) -> bool:
        return bool(self.switch.on)


@dataclass(frozen=True)
class OfMirrors:
    """What fetches, keeps and sends what mirrors have."""

    pages: UpstreamPages
    source: Source
    remote: RemoteFiles
    companions: Companions
    names: MirrorNames
    sendable: Sendable
    grants: Grants
    takeovers: Takeovers
    owners: Owners


@dataclass(frozen=True)
class OfInventory:
    """What knows what is stored, and removes it again."""

    stock: Inventory
    watching: Watching
    pruner: Pruner
    comparison: Comparison


def core(pyramid_config: Any, credentials: Credentials) -> Core:
    xom = pyramid_config.registry["xom"]
    config = xom.config
    private = Private.of(Path(config.server_path))
    role = roles.given(config)
    if role.is_replica:
        xom._http  # noqa: B018 - devpi makes another one while it is offline, which passes on no write
    challenge = Challenge(private, config.nodeinfo["uuid"])
    switch = OfflineSwitch(config, private, challenge)
    upstreams = Upstreams()
    changelog = Changelog(xom.keyfs, offline=switch.on)
    malicious = MaliciousFile(private.malicious)
    settings = _settings(pyramid_config) | {"malicious": malicious.latest.digest, "tags": 1}
    limit = budget.given(config)
    store = PageStore(
        private.directory, changelog, settings=settings, limit=min(LIMIT_BYTES, limit.for_pages or LIMIT_BYTES)
    )
    indexes = Indexes(xom, upstreams, credentials.header, lambda: malicious.latest)

    def has_room() -> bool:
        return secret_files.has_room(private.directory, secret_files.RESERVE)

    parts = OfReplica(xom, role, upstreams, private, switch, has_room=has_room) if role.is_replica else Alone()
    indexes.way = role.primary_url
    # devpi's own tests replace its client in the same way.
    xom.http = client = Client(
        upstreams,
        timeout=config.request_timeout,
        offline=lambda: switch.on,
        may_get=indexes.may_get,
        may_push=push.allowed(config).allows,
        largest_page=lambda url: LARGEST_LIST if indexes.is_mirror(url) else LARGEST_PAGE,
        has_room=has_room,
    )
    links = CanonicalLinks(private.nginx / CANONICAL)
    links.clear()  # those of a server that began anew
    return Core(
        xom=xom,
        config=config,
        private=private,
        role=role,
        parts=parts,
        challenge=challenge,
        rules=rules.given(config),
        switch=switch,
        upstreams=upstreams,
        changelog=changelog,
        malicious=malicious,
        limit=limit,
        store=store,
        indexes=indexes,
        client=client,
        links=links,
        fronted=config.args.unix_socket is not None,
    )


def of_mirrors(core: Core, credentials: Credentials) -> OfMirrors:
    xom, private, store, indexes, links = core.xom, core.private, core.store, core.indexes, core.links

    def changed(mirror: str, project: str) -> None:
        links.forget(project)
        for_devpi.expire(xom, mirror, project)
        store.forget(project)

    pages = UpstreamPages(private.upstream)
    source = core.parts.source(pages, indexes, core.client, core.rules, offline=core.offline, changed=changed)
    core.client.page_of = lambda url: for_devpi.page_of(indexes, source, url)
    names, owners = MirrorNames(xom), Owners(private.owners)
    asked_by_devpi = {
        guarded.HELD: source.held,
        ordered.ASKED: source.has,
        ordered.KNOWN: source.names,
        ordered.EXPIRE: source.expire_page,
        ordered.OWNERS: owners,
        mirror_names.NAMES: names,
    }
    for name, part in asked_by_devpi.items():
        setattr(xom, name, part)
    credentials.on_change = source.expire
    remote = core.parts.files(xom, core.client, indexes, private.temporary)
    companions = core.parts.companions(private.companions, core.files, source, remote)
    sendable = Sendable(private.nginx if core.fronted else None, files=core.files, companions=private.companions)
    grants = Grants(private.nginx / memory.GRANTED)

    def loaded(readers: Readers, rules: Mapping[str, Rules]) -> None:
        grants.end(readers.at)
        sendable.configure(readers.own, rules, readers.protected)
        links.obey(readers.protected)
        store.obey(readers)
        owners.keep_only(readers.own)

    indexes.on_load = loaded

    def rules_changed() -> None:
        indexes.outdate()
        links.clear()
        sendable.reset()
        store.forget_all()

    core.malicious.on_change = rules_changed

    def forget(project: str | None) -> None:
        store.forget_all() if project is None else store.forget(project)

    return OfMirrors(
        pages=pages,
        source=source,
        remote=remote,
        companions=companions,
        names=names,
        sendable=sendable,
        grants=grants,
        takeovers=Takeovers(xom, owners, core.challenge, forget),
        owners=owners,
    )


def of_inventory(core: Core, mirrors: OfMirrors) -> OfInventory:
    indexes, remote = core.indexes, mirrors.remote
    stock = inventory.given(core.config)

    def url_of(index: str) -> str | None:
        indexes.refresh(core.store.configured)
        mirror = indexes.mirror(index)
        return None if mirror is None else mirror.url

    watching = Watching(stock, core.files, url_of)
    mirrors.pages.on_write, mirrors.companions.on_put = watching.page, watching.companion
    renewed = remote.on_kept

    def kept(found: Found) -> None:
        renewed(found)
        watching.kept(found)

    remote.on_kept = kept
    comparison = Comparison(stock, Places(core.files, core.private.companions, core.private.upstream), url_of)
    configured = indexes.on_change

    def reconfigured(found: Mapping[str, Mirror]) -> None:
        core.links.clear()
        configured(found)
        comparison.soon()

    indexes.on_change = reconfigured
    pruner = Pruner(
        stock,
        Pinned(core.private.pinned),
        core.files,
        indexes=indexes,
        source=mirrors.source,
        remote=remote,
        companions=mirrors.companions,
    )
    return OfInventory(stock=stock, watching=watching, pruner=pruner, comparison=comparison)


def _settings(pyramid_config: Any) -> dict[str, Any]:
    """What the pages that were stored before depend on."""
    config = pyramid_config.registry["xom"].config
    plugins = pyramid_config.registry["devpi_version_info"]
    return {
        "deployer": __version__,
        "devpi": server_version(),
        "plugins": [list(plugin) for plugin in plugins],
        "uuid": config.nodeinfo["uuid"],
        "offline": config.offline_mode,
        "absolute_urls": config.args.absolute_urls,
        "keep_deleted": rules.given(config).keep_deleted,
        "core_metadata": getattr(config.args, "enable_core_metadata", True),
    }
