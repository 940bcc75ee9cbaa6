"""Connects middleware, page store and HTTP client with each other and with devpi's Pyramid application."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyramid.tweens import EXCVIEW, INGRESS

from deployer import __version__
from deployer.protocol import (
    ACCEPT_ROUTE,
    ACTIVITY_ROUTE,
    AUDIENCE_ROUTE,
    BODY_ROUTE,
    CACHED_ROUTE,
    INVENTORY_ROUTE,
    KEEP_ROUTE,
    MINT_ROUTE,
    MIRRORED_ROUTE,
    OFFLINE_ROUTE,
    OIDC_ROUTE,
    OPEN_ROUTE,
    PRUNE_ROUTE,
    REFRESH_ROUTE,
    RULES_ROUTE,
    Deleted,
)
from deployer.server import hosts, outside, secret_files
from deployer.server.challenge import Challenge
from deployer.server.devpi import guarded, mirror_names, ordered, push, quotas
from deployer.server.devpi.file_events import skip_mirrors
from deployer.server.devpi.installed import inside, server_version
from deployer.server.devpi.mirror_names import MirrorNames
from deployer.server.guard.grants import Grants
from deployer.server.guard.owners import Owners
from deployer.server.guard.readers import Readers
from deployer.server.guard.rules import Rules
from deployer.server.guard.sendable import Sendable
from deployer.server.guard.watched import MaliciousFile
from deployer.server.inventory import budget
from deployer.server.inventory import database as inventory
from deployer.server.inventory.budget import BudgetKeeper
from deployer.server.inventory.comparison import Comparison, Places
from deployer.server.inventory.pinned import Pinned
from deployer.server.inventory.prune import Pruner
from deployer.server.inventory.view import InventoryView, PruneView
from deployer.server.inventory.watching import Uses, Watching
from deployer.server.members import role as roles
from deployer.server.members.connect import Alone, OfReplica, follow, lead
from deployer.server.members.gate import Gate
from deployer.server.members.replicas import PrimaryTween
from deployer.server.middleware import bodies, changes, clients, threads
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.canonical import CANONICAL
from deployer.server.middleware.files import Mirrors
from deployer.server.middleware.middleware import Middleware
from deployer.server.middleware.orders import Orders
from deployer.server.middleware.reading import READING, Reading
from deployer.server.mirrors import for_devpi, rules
from deployer.server.mirrors.cached import Cached
from deployer.server.mirrors.canonical_links import CanonicalLinks
from deployer.server.mirrors.files import Found
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.json_api import JsonApi
from deployer.server.mirrors.refreshing import Refreshing
from deployer.server.mirrors.rules_report import RulesReport
from deployer.server.mirrors.serving import Serving
from deployer.server.mirrors.store import UpstreamPages
from deployer.server.mirrors.takeovers import Takeovers
from deployer.server.mirrors.uploads import Uploads
from deployer.server.nginx import activity, history, memory, statistics
from deployer.server.nginx.activity import ActivityView
from deployer.server.oidc import rules as oidc
from deployer.server.pages.changelog import Changelog
from deployer.server.pages.offline import OfflineSwitch
from deployer.server.pages.store import LIMIT_BYTES, PageStore
from deployer.server.secret_files import Private
from deployer.server.upstream.body import LARGEST_LIST, LARGEST_PAGE
from deployer.server.upstream.client import Client
from deployer.server.upstream.credentials import Credentials
from deployer.server.upstream.health import Upstreams
from deployer.server.web import level, session
from deployer.server.web.once import OneTimeLogin
from deployer.server.web.routes import LOGIN
from deployer.server.web.tween import Web

if TYPE_CHECKING:
    from devpi_server.keyfs import KeyChangeEvent

LOGGING = "devpi_server.views.tween_request_logging"
TRANSACTION = "devpi_server.views.tween_keyfs_transaction"
SWITCH, CHANGELOG, CHALLENGE = "deployer.offline", "deployer.changelog", "deployer.challenge"
DELETED = "deployer.deleted"
"""Key of the function that returns which projects an upstream has deleted, but those of some hidden mirrors."""
MALICIOUS = "deployer.malicious"
"""Key of the list of malicious releases, which is read again when its file has changed."""
STORE = "deployer.pages"
"""Key of the page store in Pyramid's registry, for other plugins."""
INVENTORY = "deployer.inventory"
"""Key of the inventory (:mod:`deployer.server.inventory.reading` has what it answers)."""
CACHE = "deployer.cache"
"""Key of the function that returns the bytes of the cache, and its budget."""
ACTIVITY = "deployer.activity"
"""Key of the view of what happens now (:class:`deployer.server.nginx.activity.ActivityView`)."""
HISTORY = "deployer.history"
"""Key of the history (:class:`deployer.server.nginx.history.History`)."""
STARTED = 0.5
"""Seconds after which the start is over; what it does not need is imported and read then."""
UNSENT = 256 * 1024
"""Bytes of one response that may wait in memory for a slow client."""
UNSENT_TO_NGINX = 64 * 1024
"""The same for nginx, which has a buffer of its own."""
SLOWEST = 300
"""Seconds without progress after which a client is cut off: a third of the socket's buffer takes less at 1 kB/s."""


def configure(pyramid_config: Any, credentials: Credentials) -> None:
    """Add everything to devpi's application. Called once, before the server answers."""
    xom = pyramid_config.registry["xom"]
    config = xom.config
    private = Private.of(Path(config.server_path))
    role = roles.given(config)
    if role.is_replica:
        xom._http  # noqa: B018 - devpi makes another one while it is offline, which passes on no write
    challenge = Challenge(private, config.nodeinfo["uuid"])
    mirror_rules = rules.given(config)
    switch = OfflineSwitch(config, private, challenge)
    upstreams = Upstreams()
    changelog = Changelog(xom.keyfs, offline=switch.on)
    malicious = MaliciousFile(private.malicious)
    settings = _settings(pyramid_config) | {"malicious": malicious.latest.digest}
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

    def changed(mirror: str, project: str) -> None:
        links.forget(project)
        for_devpi.expire(xom, mirror, project)
        store.forget(project)

    pages = UpstreamPages(private.upstream)
    source = parts.source(pages, indexes, client, mirror_rules, offline=lambda: switch.on, changed=changed)
    configured = indexes.on_change

    def reconfigured(mirrors: Mapping[str, Mirror]) -> None:
        links.clear()
        configured(mirrors)
        comparison.soon()

    indexes.on_change = reconfigured
    client.page_of = lambda url: for_devpi.page_of(indexes, source, url)
    setattr(xom, guarded.HELD, source.held)
    setattr(xom, ordered.ASKED, source.has)
    setattr(xom, ordered.KNOWN, source.names)
    setattr(xom, ordered.EXPIRE, source.expire_page)
    names = MirrorNames(xom)
    setattr(xom, mirror_names.NAMES, names)
    owners = Owners(private.owners)
    setattr(xom, ordered.OWNERS, owners)
    credentials.on_change = source.expire
    remote = parts.files(xom, client, indexes, private.temporary)
    api = JsonApi(pages, source, mirror_rules, offline=lambda: switch.on)
    files = Path(config.server_path) / "+files"
    companions = parts.companions(private.companions, files, source, remote)
    stock = inventory.given(config)

    def url_of(index: str) -> str | None:
        indexes.refresh(store.configured)
        mirror = indexes.mirror(index)
        return None if mirror is None else mirror.url

    watching = Watching(stock, files, url_of)
    pages.on_write, companions.on_put = watching.page, watching.companion
    renewed = remote.on_kept

    def kept(found: Found) -> None:
        renewed(found)
        watching.kept(found)

    remote.on_kept = kept
    pruner = Pruner(
        stock,
        Pinned(private.pinned),
        files,
        indexes=indexes,
        source=source,
        remote=remote,
        companions=companions,
    )
    comparison = Comparison(stock, Places(files, private.companions, private.upstream), url_of)
    fronted = config.args.unix_socket is not None
    sendable = Sendable(private.nginx if fronted else None, files=files, companions=private.companions)

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

    malicious.on_change = rules_changed

    def forget(project: str | None) -> None:
        store.forget_all() if project is None else store.forget(project)

    takeovers = Takeovers(xom, owners, challenge, forget)
    grow, is_short = threads.growing(config.args.threads, config.waitress_info["kwargs"])
    clients.install(clients.Clients(is_short), outside.given(config), admits=not fronted)
    bulkhead = Bulkhead(config.args.threads, grow)
    middleware = Middleware(
        store,
        Mirrors(
            indexes,
            source,
            Serving(xom, indexes, source, Uploads(xom, files), store.last_change),
            remote,
            companions,
            api,
            links,
            sendable,
            takeovers,
        ),
        bulkhead,
        Path(config.server_path),
        timeout=config.request_timeout,
        offline=lambda: switch.on,
        missed=switch.missed,
        names=names,
        hosts=hosts.known(config),
        absolute=config.args.absolute_urls,
        readers=bool(config.hook.devpiserver_stage_get_principals_for_pkg_read.get_hookimpls()),
    )
    pyramid_config.registry[STORE] = store
    pyramid_config.registry[INVENTORY] = stock
    pyramid_config.registry[HISTORY] = past = history.given(config)
    past.upstreams = lambda: upstreams.known
    pyramid_config.registry[CACHE] = lambda: (pruner.cache_bytes + store.disk, limit.most)
    pyramid_config.registry[MALICIOUS] = malicious
    pyramid_config.registry[CHANGELOG] = changelog
    pyramid_config.registry[statistics.UPSTREAMS] = upstreams
    pyramid_config.registry[SWITCH] = switch
    pyramid_config.registry[CHALLENGE] = challenge
    pyramid_config.registry[DELETED] = lambda hidden: Deleted.of(
        [f"{mirror}/{project}" for mirror, project in source.deleted if mirror not in hidden],
        kept=mirror_rules.keep_deleted,
    )
    refreshing = Refreshing(source, challenge, offline=lambda: switch.on)
    pyramid_config.add_route(RULES_ROUTE, RULES_ROUTE)
    pyramid_config.add_view(
        RulesReport(indexes, source, takeovers, files), route_name=RULES_ROUTE, renderer="json", request_method="GET"
    )
    pyramid_config.add_route(ACCEPT_ROUTE, ACCEPT_ROUTE)
    pyramid_config.add_view(takeovers.accept, route_name=ACCEPT_ROUTE, renderer="json", request_method="POST")
    pyramid_config.add_route(BODY_ROUTE, BODY_ROUTE)
    pyramid_config.add_view(bodies.admit, route_name=BODY_ROUTE, request_method="GET")
    pyramid_config.add_route(OFFLINE_ROUTE, OFFLINE_ROUTE)
    pyramid_config.add_view(switch.view, route_name=OFFLINE_ROUTE, renderer="json", request_method="POST")
    # The tweens answer these; the views are what Pyramid knows of them.
    pyramid_config.add_route(MIRRORED_ROUTE, MIRRORED_ROUTE)
    pyramid_config.add_view(middleware.mirrored, route_name=MIRRORED_ROUTE, request_method="GET")
    cached = Cached(indexes, source, remote, companions, files, challenge)
    happening = ActivityView(
        challenge,
        activity.given(config),
        counted=lambda: pyramid_config.registry[statistics.NAME].latest,
        upstreams=lambda: upstreams.known,
        threads=lambda: threads.now(config.waitress_info["kwargs"]),
        quotas=lambda: quotas.now(config),
    )
    pyramid_config.registry[ACTIVITY] = happening
    orders = Orders(
        {
            REFRESH_ROUTE: refreshing.view,
            CACHED_ROUTE: cached.list,
            KEEP_ROUTE: cached.keep,
            INVENTORY_ROUTE: InventoryView(stock, challenge),
            ACTIVITY_ROUTE: happening,
            PRUNE_ROUTE: PruneView(pruner, challenge, offline=lambda: switch.on),
        }
    )
    exchange = _exchange(config)
    if exchange is not None:
        orders.views.update({OIDC_ROUTE: exchange.view, MINT_ROUTE: exchange.view})
        pyramid_config.add_route(AUDIENCE_ROUTE, AUDIENCE_ROUTE)
        pyramid_config.add_view(exchange.audience, route_name=AUDIENCE_ROUTE, request_method="GET")
    pyramid_config.registry[orders_factory] = orders
    for route, view in orders.views.items():
        pyramid_config.add_route(route, route)
        pyramid_config.add_view(view, route_name=route, request_method="POST")
    # By default waitress buffers 16 MiB for each slow client, more memory than there is for fifty of them.
    config.waitress_info["kwargs"].update(
        outbuf_high_watermark=UNSENT_TO_NGINX if fronted else UNSENT, asyncore_use_poll=True, channel_timeout=SLOWEST
    )
    # With `over` alone, Pyramid moves its exception view above devpi's transaction, and every write is rolled back.
    pyramid_config.add_tween("deployer.server.assemble.middleware_factory", over=LOGGING, under=INGRESS)
    if not fronted:
        pyramid_config.registry[uses_factory] = Uses(stock)
        pyramid_config.add_tween(
            "deployer.server.assemble.uses_factory",
            over="deployer.server.assemble.middleware_factory",
            under=INGRESS,
        )
    pyramid_config.add_tween(
        "deployer.server.middleware.browsers.tween_factory",
        over="deployer.server.assemble.middleware_factory",
        under=INGRESS,
    )
    pyramid_config.add_tween(
        "deployer.server.assemble.orders_factory",
        over=LOGGING,
        under="deployer.server.assemble.middleware_factory",
    )
    pyramid_config.registry[changes_factory] = changes.ChangeLog(private.changes, private.refused)
    pyramid_config.add_tween(
        "deployer.server.assemble.changes_factory", over=LOGGING, under="deployer.server.assemble.orders_factory"
    )
    pyramid_config.add_tween("deployer.server.middleware.middleware.note_transaction", over=EXCVIEW, under=TRANSACTION)
    pyramid_config.registry[middleware_factory] = middleware
    shown = level.given(config)
    pages_shown: list[Web] = []
    pyramid_config.registry[READING] = reading = Reading(
        xom,
        lambda: indexes.readers(configured=store.configured),
        session=lambda request: found.auth if shown.manages and (found := session.of(request)) else None,
        page=lambda request: any(web.has_page(request) for web in pages_shown),
        login=LOGIN if shown.manages else "",
        grants=grants,
    )
    pyramid_config.add_tween(
        "deployer.server.assemble.reading_factory",
        over="deployer.server.assemble.middleware_factory",
        under="deployer.server.middleware.browsers.tween_factory",
    )
    if shown.shows:
        once = OneTimeLogin(private, challenge) if shown.manages else None
        if once is not None:
            pyramid_config.add_route(OPEN_ROUTE, OPEN_ROUTE)
            pyramid_config.add_view(once.view, route_name=OPEN_ROUTE, renderer="json", request_method="POST")
        pyramid_config.registry[web_factory] = web = Web(
            xom,
            indexes,
            source,
            store,
            inventory=stock,
            activity=happening,
            history=past,
            hosts=hosts.known(config),
            serverdir=Path(config.server_path),
            offline=lambda: switch.on,
            switch=lambda offline: switch.turn(offline=offline, store=store, changelog=changelog),
            once=once,
            pruner=pruner,
            hidden=reading.hidden,
        )
        pages_shown.append(web)
        pyramid_config.add_tween(
            "deployer.server.assemble.web_factory",
            over="deployer.server.assemble.middleware_factory",
            under="deployer.server.assemble.reading_factory",
        )

    member: PrimaryTween | Gate | None = None
    if isinstance(parts, OfReplica):
        member = follow(xom, parts, source, remote, indexes, store, changelog, switch, malicious)
        pyramid_config.add_tween("deployer.server.assemble.whole_body_factory", over=EXCVIEW, under=TRANSACTION)
    elif role.is_primary:
        member = lead(xom, role, source, indexes, store, changelog, switch, malicious, bulkhead)
    if member is not None:
        pyramid_config.registry[member_factory] = member
        pyramid_config.add_tween(
            "deployer.server.assemble.member_factory",
            over="deployer.server.middleware.browsers.tween_factory",
            under=INGRESS,
        )

    def on_change(_event: KeyChangeEvent) -> None:
        # For commits without a request: a page that arrived after its client had disconnected.
        store.catch_up()

    for name in inside().OF_PAGES:
        xom.keyfs.notifier.on_key_change(name, on_change)
    skip_mirrors(xom)
    for name in inside().FILES:
        xom.keyfs.notifier.on_key_change(name, watching.event)
    threading.Thread(target=store.watch, name="pages", daemon=True).start()
    threading.Thread(target=grants.watch, name="grants", daemon=True).start()
    threading.Thread(target=malicious.watch, name="rules", daemon=True).start()

    def settle() -> None:
        if not role.is_replica:
            names.find()
        source.find_deleted(indexes.all(configured=store.configured))

    if limit.most is not None and not role.is_replica:  # what a primary prunes goes from its replicas, too
        keeper = BudgetKeeper(stock, pruner, limit.most, others=lambda: store.disk, offline=lambda: switch.on)
        remote.room_for = keeper.room_for
        threading.Thread(target=keeper.watch, name="budget", daemon=True).start()
    threading.Thread(target=comparison.watch, name="inventory", daemon=True).start()
    later = threading.Timer(STARTED, settle)
    later.daemon = True
    later.start()
    atexit.register(store.finish)


def middleware_factory(handler: Any, registry: Any) -> Any:
    """The tween above all of devpi's own."""
    return registry[middleware_factory].tween(handler)


def member_factory(handler: Any, registry: Any) -> Any:
    """The tween above all others, of a primary or a replica."""
    return registry[member_factory].tween(handler)


def whole_body_factory(handler: Any, registry: Any) -> Any:
    """The tween of a replica below devpi's transaction."""
    return registry[member_factory].whole_body(handler)


def web_factory(handler: Any, registry: Any) -> Any:
    """The tween above that one, for browsers."""
    return registry[web_factory].tween(handler)


def reading_factory(handler: Any, registry: Any) -> Any:
    """The tween above all that shows what an index has."""
    return registry[READING].tween(handler)


def orders_factory(handler: Any, registry: Any) -> Any:
    """The tween between those two, for requests that need no transaction."""
    return registry[orders_factory].tween(handler)


def uses_factory(handler: Any, registry: Any) -> Any:
    """The tween that notes what is used, where there is no access log."""
    return registry[uses_factory].tween(handler)


def changes_factory(handler: Any, registry: Any) -> Any:
    """The tween above devpi's transaction that records what was changed."""
    return registry[changes_factory].tween(handler)


def _exchange(config: Any) -> Any:
    """The exchange of ID tokens; None without rules, and then what it needs is not imported."""
    found = oidc.given(config)
    if not found.rules:
        return None
    from deployer.server.devpi import job_tokens
    from deployer.server.oidc.exchange import Exchange
    from deployer.server.oidc.verify import Verifier

    return Exchange(found, Verifier(found), job_tokens.cut)


def _settings(pyramid_config: Any) -> dict[str, Any]:
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
