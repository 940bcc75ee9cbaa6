"""Connects middleware, page store and HTTP client with each other and with devpi's Pyramid application."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.server import cdn, hosts, outside
from deployer.server.assemble import parts, tweens, views
from deployer.server.assemble.parts import Core, OfInventory, OfMirrors
from deployer.server.devpi.file_events import skip_mirrors
from deployer.server.devpi.installed import inside
from deployer.server.inventory.budget import BudgetKeeper
from deployer.server.members.connect import OfReplica, follow, lead
from deployer.server.members.standing import of_primary
from deployer.server.middleware import clients, threads
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.files import Mirrors
from deployer.server.middleware.middleware import Middleware
from deployer.server.middleware.orders import Orders
from deployer.server.mirrors.json_api import JsonApi
from deployer.server.mirrors.serving import Serving
from deployer.server.mirrors.uploads import Uploads
from deployer.server.upstream.credentials import Credentials

if TYPE_CHECKING:
    from devpi_server.keyfs import KeyChangeEvent

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
    core = parts.core(pyramid_config, credentials)
    mirrors = parts.of_mirrors(core, credentials)
    inventory = parts.of_inventory(core, mirrors)
    views.publish(pyramid_config.registry, core, mirrors, inventory)
    middleware, bulkhead = _middleware(core, mirrors)
    orders = views.add(pyramid_config, core, mirrors, inventory, middleware)
    tweens.add(pyramid_config, core, middleware, orders, inventory)
    tweens.add_pages(pyramid_config, core, mirrors, inventory)
    _join(pyramid_config, core, mirrors, bulkhead, orders)
    _listen(core, inventory)
    _begin(core, mirrors, inventory)


def _middleware(core: Core, mirrors: OfMirrors) -> tuple[Middleware, Bulkhead]:
    config, source = core.config, mirrors.source
    kwargs = config.waitress_info["kwargs"]
    grow, is_short = threads.growing(config.args.threads, kwargs)
    clients.install(clients.Clients(is_short), outside.given(config), admits=not core.fronted)
    # By default waitress buffers 16 MiB for each slow client, more memory than there is for fifty of them.
    kwargs.update(
        outbuf_high_watermark=UNSENT_TO_NGINX if core.fronted else UNSENT,
        asyncore_use_poll=True,
        channel_timeout=SLOWEST,
    )
    bulkhead = Bulkhead(config.args.threads, grow)
    middleware = Middleware(
        core.store,
        Mirrors(
            core.indexes,
            source,
            Serving(core.xom, core.indexes, source, Uploads(core.xom, core.files), core.store.last_change),
            mirrors.remote,
            mirrors.companions,
            JsonApi(mirrors.pages, source, core.rules, offline=core.offline),
            core.links,
            mirrors.sendable,
            mirrors.takeovers,
        ),
        bulkhead,
        Path(config.server_path),
        timeout=config.request_timeout,
        offline=core.offline,
        missed=core.switch.missed,
        names=mirrors.names,
        hosts=hosts.known(config),
        absolute=config.args.absolute_urls,
        readers=bool(config.hook.devpiserver_stage_get_principals_for_pkg_read.get_hookimpls()),
        caches=cdn.given(config),
    )
    return middleware, bulkhead


def _join(pyramid_config: Any, core: Core, mirrors: OfMirrors, bulkhead: Bulkhead, orders: Orders) -> None:
    """Make the server a member, if it is a primary or a replica."""
    role, changelog, uuid = core.role, core.changelog, core.config.nodeinfo["uuid"]
    shared = (core.indexes, core.store, core.changelog, core.switch, core.malicious, mirrors.owners)
    if isinstance(core.parts, OfReplica):
        gate = follow(core.xom, core.parts, mirrors.source, mirrors.remote, *shared)
        tweens.add_member(pyramid_config, gate, replica=True)
        views.add_status(pyramid_config, core, orders, lambda: gate.following.status(role))
    elif core.role.is_primary:
        views.add_status(pyramid_config, core, orders, lambda: of_primary(role, uuid, changelog.serial))
        tweens.add_member(
            pyramid_config, lead(core.xom, core.role, mirrors.source, *shared, mirrors.pages, bulkhead), replica=False
        )


def _listen(core: Core, inventory: OfInventory) -> None:
    """Hear of commits that come without a request, such as a page that arrived after its client had disconnected."""

    def on_change(_event: KeyChangeEvent) -> None:
        core.store.catch_up()

    notifier = core.xom.keyfs.notifier
    for name in inside().OF_PAGES:
        notifier.on_key_change(name, on_change)
    skip_mirrors(core.xom)
    for name in inside().FILES:
        notifier.on_key_change(name, inventory.watching.event)


def _begin(core: Core, mirrors: OfMirrors, inventory: OfInventory) -> None:
    """Start the threads that watch, and what waits until the server has started."""
    store, limit = core.store, core.limit.most

    def settle() -> None:
        if not core.role.is_replica:
            mirrors.names.find()
        mirrors.source.find_deleted(core.indexes.all(configured=store.configured))

    watches = {
        "pages": store.watch,
        "grants": mirrors.grants.watch,
        "rules": core.malicious.watch,
        "inventory": inventory.comparison.watch,
    }
    if limit is not None and not core.role.is_replica:  # what a primary prunes goes from its replicas, too
        keeper = BudgetKeeper(inventory.stock, inventory.pruner, limit, others=lambda: store.disk, offline=core.offline)
        mirrors.remote.room_for = keeper.room_for
        watches["budget"] = keeper.watch
    for name, watch in watches.items():
        threading.Thread(target=watch, name=name, daemon=True).start()
    later = threading.Timer(STARTED, settle)
    later.daemon = True
    later.start()
    atexit.register(store.finish)
