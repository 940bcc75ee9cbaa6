"""Our own endpoints, and what they and other modules find in Pyramid's registry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deployer.protocol import (
    ACCEPT_ROUTE,
    ACTIVITY_ROUTE,
    AUDIENCE_ROUTE,
    BODY_ROUTE,
    CACHED_ROUTE,
    INVENTORY_ROUTE,
    KEEP_ROUTE,
    MEMBER_STATUS_ROUTE,
    MINT_ROUTE,
    MIRRORED_ROUTE,
    OFFLINE_ROUTE,
    OIDC_ROUTE,
    PRUNE_ROUTE,
    REFRESH_ROUTE,
    RULES_ROUTE,
    Deleted,
    MemberStatus,
)
from deployer.server.assemble import keys
from deployer.server.assemble.parts import Core, OfInventory, OfMirrors
from deployer.server.devpi import quotas
from deployer.server.inventory.view import InventoryView, PruneView
from deployer.server.members.standing import StatusView
from deployer.server.middleware import bodies, threads
from deployer.server.middleware.middleware import Middleware
from deployer.server.middleware.orders import Orders
from deployer.server.mirrors.cached import Cached
from deployer.server.mirrors.refreshing import Refreshing
from deployer.server.mirrors.rules_report import RulesReport
from deployer.server.nginx import activity, history, statistics
from deployer.server.nginx.activity import ActivityView
from deployer.server.oidc import rules as oidc


def publish(registry: Any, core: Core, mirrors: OfMirrors, inventory: OfInventory) -> None:
    """Put into the registry what others ask for."""
    config, upstreams, source = core.config, core.upstreams, mirrors.source
    past = history.given(config)
    past.upstreams = lambda: upstreams.known
    happening = ActivityView(
        core.challenge,
        activity.given(config),
        counted=lambda: registry[statistics.NAME].latest,
        upstreams=lambda: upstreams.known,
        threads=lambda: threads.now(config.waitress_info["kwargs"]),
        quotas=lambda: quotas.now(config),
    )
    registry[keys.STORE] = core.store
    registry[keys.INVENTORY] = inventory.stock
    registry[keys.HISTORY] = past
    registry[keys.CACHE] = lambda: (inventory.pruner.cache_bytes + core.store.disk, core.limit.most)
    registry[keys.MALICIOUS] = core.malicious
    registry[keys.CHANGELOG] = core.changelog
    registry[statistics.UPSTREAMS] = upstreams
    registry[keys.SWITCH] = core.switch
    registry[keys.CHALLENGE] = core.challenge
    registry[keys.DELETED] = lambda hidden: Deleted.of(
        [f"{mirror}/{project}" for mirror, project in source.deleted if mirror not in hidden],
        kept=core.rules.keep_deleted,
    )
    registry[keys.ACTIVITY] = happening


def add(pyramid_config: Any, core: Core, mirrors: OfMirrors, inventory: OfInventory, middleware: Middleware) -> Orders:
    """Add the endpoints; those that need no transaction are answered by the tween that is returned."""

    def view(route: str, answer: Any, **how: Any) -> None:
        pyramid_config.add_route(route, route)
        pyramid_config.add_view(answer, route_name=route, **how)

    indexes, source, takeovers = core.indexes, mirrors.source, mirrors.takeovers
    view(RULES_ROUTE, RulesReport(indexes, source, takeovers, core.files), renderer="json", request_method="GET")
    view(ACCEPT_ROUTE, takeovers.accept, renderer="json", request_method="POST")
    view(BODY_ROUTE, bodies.admit, request_method="GET")
    view(OFFLINE_ROUTE, core.switch.view, renderer="json", request_method="POST")
    # The tweens answer these; the views are what Pyramid knows of them.
    view(MIRRORED_ROUTE, middleware.mirrored, request_method="GET")
    cached = Cached(indexes, source, mirrors.remote, mirrors.companions, core.files, core.challenge)
    orders = Orders(
        {
            REFRESH_ROUTE: Refreshing(source, core.challenge, offline=core.offline).view,
            CACHED_ROUTE: cached.list,
            KEEP_ROUTE: cached.keep,
            INVENTORY_ROUTE: InventoryView(inventory.stock, core.challenge),
            ACTIVITY_ROUTE: pyramid_config.registry[keys.ACTIVITY],
            PRUNE_ROUTE: PruneView(inventory.pruner, core.challenge, offline=core.offline),
        }
    )
    exchange = _exchange(core.config)
    if exchange is not None:
        orders.views.update({OIDC_ROUTE: exchange.view, MINT_ROUTE: exchange.view})
        view(AUDIENCE_ROUTE, exchange.audience, request_method="GET")
    for route, answer in orders.views.items():
        view(route, answer, request_method="POST")
    return orders


def add_status(pyramid_config: Any, core: Core, orders: Orders, status: Callable[[], MemberStatus]) -> None:
    """Add the endpoint of a member of a cluster."""
    pyramid_config.registry[keys.MEMBER] = status
    orders.views[MEMBER_STATUS_ROUTE] = answer = StatusView(core.challenge, status, core.private.front)
    pyramid_config.add_route(MEMBER_STATUS_ROUTE, MEMBER_STATUS_ROUTE)
    pyramid_config.add_view(answer, route_name=MEMBER_STATUS_ROUTE, request_method="POST")


def _exchange(config: Any) -> Any:
    """The exchange of ID tokens; None without rules, and then what it needs is not imported."""
    found = oidc.given(config)
    if not found.rules:
        return None
    from deployer.server.devpi import job_tokens
    from deployer.server.oidc.exchange import Exchange
    from deployer.server.oidc.verify import Verifier

    return Exchange(found, Verifier(found), job_tokens.cut)
