"""The tweens of ours, in their places among devpi's. Pyramid finds the factories by their dotted names.

A request passes, from the outside: member, browsers, reading, web, middleware, orders, changes, then devpi's own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyramid.tweens import EXCVIEW, INGRESS

from deployer.protocol import OPEN_ROUTE
from deployer.server import hosts
from deployer.server.assemble import keys
from deployer.server.assemble.parts import Core, OfInventory, OfMirrors
from deployer.server.inventory.watching import Uses
from deployer.server.members.gate import Gate
from deployer.server.members.replicas import PrimaryTween
from deployer.server.middleware import changes
from deployer.server.middleware.middleware import Middleware
from deployer.server.middleware.orders import Orders
from deployer.server.middleware.reading import READING, Reading
from deployer.server.web import level, session
from deployer.server.web.once import OneTimeLogin
from deployer.server.web.routes import LOGIN
from deployer.server.web.tween import Web

_HERE = "deployer.server.assemble.tweens"
_MIDDLEWARE, _BROWSERS = f"{_HERE}.middleware_factory", "deployer.server.middleware.browsers.tween_factory"
_LOGGING = "devpi_server.views.tween_request_logging"
_TRANSACTION = "devpi_server.views.tween_keyfs_transaction"


def add(pyramid_config: Any, core: Core, middleware: Middleware, orders: Orders, inventory: OfInventory) -> None:
    """Add the tweens of every server."""
    registry = pyramid_config.registry
    registry[middleware_factory], registry[orders_factory] = middleware, orders
    registry[changes_factory] = changes.ChangeLog(core.private.changes, core.private.refused)
    # With `over` alone, Pyramid moves its exception view above devpi's transaction, and every write is rolled back.
    pyramid_config.add_tween(_MIDDLEWARE, over=_LOGGING, under=INGRESS)
    if not core.fronted:
        registry[uses_factory] = Uses(inventory.stock)
        pyramid_config.add_tween(f"{_HERE}.uses_factory", over=_MIDDLEWARE, under=INGRESS)
    pyramid_config.add_tween(_BROWSERS, over=_MIDDLEWARE, under=INGRESS)
    pyramid_config.add_tween(f"{_HERE}.orders_factory", over=_LOGGING, under=_MIDDLEWARE)
    pyramid_config.add_tween(f"{_HERE}.changes_factory", over=_LOGGING, under=f"{_HERE}.orders_factory")
    pyramid_config.add_tween("deployer.server.middleware.middleware.note_transaction", over=EXCVIEW, under=_TRANSACTION)


def add_pages(pyramid_config: Any, core: Core, mirrors: OfMirrors, inventory: OfInventory) -> None:
    """Add the tween that knows who may read what, and the pages for browsers."""
    registry, indexes, store = pyramid_config.registry, core.indexes, core.store
    shown = level.given(core.config)
    pages: list[Web] = []
    registry[READING] = reading = Reading(
        core.xom,
        lambda: indexes.readers(configured=store.configured),
        session=lambda request: found.auth if shown.manages and (found := session.of(request)) else None,
        page=lambda request: any(web.has_page(request) for web in pages),
        login=LOGIN if shown.manages else "",
        grants=mirrors.grants,
    )
    pyramid_config.add_tween(f"{_HERE}.reading_factory", over=_MIDDLEWARE, under=_BROWSERS)
    if not shown.shows:
        return
    once = OneTimeLogin(core.private, core.challenge) if shown.manages else None
    if once is not None:
        pyramid_config.add_route(OPEN_ROUTE, OPEN_ROUTE)
        pyramid_config.add_view(once.view, route_name=OPEN_ROUTE, renderer="json", request_method="POST")
    registry[web_factory] = web = Web(
        core.xom,
        indexes,
        mirrors.source,
        store,
        inventory=inventory.stock,
        activity=registry[keys.ACTIVITY],
        history=registry[keys.HISTORY],
        hosts=hosts.known(core.config),
        serverdir=Path(core.config.server_path),
        offline=core.offline,
        switch=lambda offline: core.switch.turn(offline=offline, store=store, changelog=core.changelog),
        once=once,
        pruner=inventory.pruner,
        hidden=reading.hidden,
    )
    pages.append(web)
    pyramid_config.add_tween(f"{_HERE}.web_factory", over=_MIDDLEWARE, under=f"{_HERE}.reading_factory")


def add_member(pyramid_config: Any, member: PrimaryTween | Gate, *, replica: bool) -> None:
    """Add the tween of a primary, or those of a replica."""
    if replica:
        pyramid_config.add_tween(f"{_HERE}.whole_body_factory", over=EXCVIEW, under=_TRANSACTION)
    pyramid_config.registry[member_factory] = member
    pyramid_config.add_tween(f"{_HERE}.member_factory", over=_BROWSERS, under=INGRESS)


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
