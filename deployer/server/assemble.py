"""Puts together what keeps devpi-server truthful under load, and hangs it into devpi's application."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devpi_server import __version__ as devpi_version
from pyramid.tweens import EXCVIEW, INGRESS

from deployer import __version__
from deployer.server.devpi import events
from deployer.server.devpi.installed import inside
from deployer.server.middleware import threads
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.middleware import Gate
from deployer.server.nginx import statistics
from deployer.server.pages import offline
from deployer.server.pages.changelog import Changelog
from deployer.server.pages.freshness import Indexes
from deployer.server.pages.offline import Switch
from deployer.server.pages.store import PageStore
from deployer.server.secret_files import Private
from deployer.server.upstream import credentials, outbound
from deployer.server.upstream.client import Client
from deployer.server.upstream.health import Upstreams

if TYPE_CHECKING:
    from devpi_server.keyfs import KeyChangeEvent

LOGGING = "devpi_server.views.tween_request_logging"
TRANSACTION = "devpi_server.views.tween_keyfs_transaction"
SWITCH, CHANGELOG = "deployer.offline", "deployer.changelog"
STORE = "deployer.pages"
"""Where Pyramid's registry has the page store, for other plugins."""
STARTED = 0.5
"""Seconds from here after which the start is over, and what nobody needed for it may be loaded."""
UNSENT = 256 * 1024
"""Bytes of one answer that may wait in memory for its client."""
SLOWEST = 1800
"""Seconds in which a client may take nothing: at 1 kB/s the megabytes in a socket's buffer last as long."""


def put_in_place(pyramid_config: Any, known: credentials.Credentials) -> None:
    """Hang everything into the application that is being made. Called by devpi, once, before it serves."""
    xom = pyramid_config.registry["xom"]
    config = xom.config
    private = Private.of(Path(config.server_path))
    switch = Switch(config, private)
    upstreams = Upstreams()
    changelog = Changelog(xom.keyfs, offline=switch.on)
    store = PageStore(private.directory, changelog, words=_words(pyramid_config))
    indexes = Indexes(xom, upstreams, known.header)
    known.on_change = indexes.ask_again
    credentials.install(known)
    # devpi's own tests give it another client by the same way.
    xom.http = Client(
        upstreams,
        timeout=config.request_timeout,
        offline=lambda: switch.on,
        may_get=indexes.may_get,
        may_push=outbound.allowed(config).allows,
    )
    gate = Gate(
        store,
        indexes,
        Bulkhead(config.args.threads, threads.growing(config.args.threads, config.waitress_info["kwargs"])),
        Path(config.server_path),
        timeout=config.request_timeout,
        offline=lambda: switch.on,
    )
    pyramid_config.registry[STORE] = store
    pyramid_config.registry[CHANGELOG] = changelog
    pyramid_config.registry[statistics.UPSTREAMS] = upstreams
    pyramid_config.registry[SWITCH] = switch
    pyramid_config.add_route(offline.ROUTE, offline.ROUTE)
    pyramid_config.add_view(switch.view, route_name=offline.ROUTE, renderer="json", request_method="POST")
    # Keeps so much of each answer that its client has not taken yet; by default 16 MiB, more than there is for fifty.
    config.waitress_info["kwargs"].update(outbuf_high_watermark=UNSENT, asyncore_use_poll=True, channel_timeout=SLOWEST)
    # With `over` alone Pyramid's exception view moves above devpi's transaction, and every write is rolled back.
    pyramid_config.add_tween("deployer.server.assemble.gate_factory", over=LOGGING, under=INGRESS)
    pyramid_config.add_tween("deployer.server.middleware.middleware.note_transaction", over=EXCVIEW, under=TRANSACTION)
    pyramid_config.registry[gate_factory] = gate

    def on_change(_event: KeyChangeEvent) -> None:
        # For what devpi commits without a request: a page that came after its client was gone.
        store.catch_up()

    for name in inside().OF_PAGES:
        xom.keyfs.notifier.on_key_change(name, on_change)
    events.spare_mirrors(xom)
    threading.Thread(target=store.watch, name="pages", daemon=True).start()
    later = threading.Timer(STARTED, xom.http.load)
    later.daemon = True
    later.start()
    atexit.register(store.finish)


def gate_factory(handler: Any, registry: Any) -> Any:
    """The tween above all of devpi's."""
    return registry[gate_factory].tween(handler)


def _words(pyramid_config: Any) -> dict[str, Any]:
    config = pyramid_config.registry["xom"].config
    plugins = pyramid_config.registry["devpi_version_info"]
    return {
        "deployer": __version__,
        "devpi": devpi_version,
        "plugins": [list(plugin) for plugin in plugins],
        "uuid": config.nodeinfo["uuid"],
        "offline": config.offline_mode,
        "absolute_urls": config.args.absolute_urls,
        "core_metadata": getattr(config.args, "enable_core_metadata", True),
    }
