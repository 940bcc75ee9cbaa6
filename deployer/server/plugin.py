"""The devpi-server plugin: the views of deployer, and the index type ``ordered``."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pluggy import HookimplMarker
from pyramid.response import Response

from deployer import __version__
from deployer.protocol import (
    BODY_ROUTE,
    FORWARDED_HEADER,
    IDENTITY_ROUTE,
    LIVE_ROUTE,
    NAMES_ROUTE,
    NONCE_HEADER,
    PASSED_ON,
    READY_ROUTE,
    About,
    is_nonce,
    server_proof,
)
from deployer.server import assemble, secret_files
from deployer.server.assemble import keys
from deployer.server.devpi import audit, ordered, stored
from deployer.server.devpi.installed import default_mirror_url, server_version
from deployer.server.middleware import browsers, changes
from deployer.server.middleware.bodies import ORIGINAL
from deployer.server.middleware.reading import READING
from deployer.server.nginx.statistics import METRICS
from deployer.server.outside import FORWARDED
from deployer.server.secret_files import Private
from deployer.server.upstream.credentials import Credentials
from deployer.server.web import session
from deployer.server.web.routes import PREFIX

hookimpl = HookimplMarker("devpiserver")

NAME = "deployer"
WRITE_CHECK_SECONDS = 5.0
"""How long the result of a write check holds: clients must not be able to cause writes at will."""


class Plugin:
    """The plugin object. ``credentials``: those of mirrors."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    @hookimpl
    def devpiserver_pyramid_configure(self, config: Any, pyramid_config: Any) -> None:
        # devpi registers its own routes later, so `/{user}` does not match these.
        pyramid_config.add_route(IDENTITY_ROUTE, IDENTITY_ROUTE)
        view = IdentityView(config, self._credentials)
        pyramid_config.add_view(view, route_name=IDENTITY_ROUTE, renderer="json", request_method="GET")
        pyramid_config.add_route(LIVE_ROUTE, LIVE_ROUTE)
        pyramid_config.add_view(live, route_name=LIVE_ROUTE, request_method="GET")
        pyramid_config.add_route(READY_ROUTE, READY_ROUTE)
        pyramid_config.add_view(view.ready, route_name=READY_ROUTE, request_method="GET")
        pyramid_config.add_route(NAMES_ROUTE, NAMES_ROUTE)
        pyramid_config.add_view(audit.names, route_name=NAMES_ROUTE, renderer="json", request_method="GET")
        assemble.configure(pyramid_config, self._credentials)
        exporter = config.pluginmanager.get_plugin(METRICS)
        if exporter is not None:
            from deployer.server.measures import measured

            exporter.measure = lambda: measured(config, pyramid_config.registry, can_write=view.can_write)
        if config.pluginmanager.has_plugin("devpi-web"):
            from deployer.server.devpi import documentation

            documentation.configure(pyramid_config)
            pyramid_config.registry[browsers.SCRIPTS] = documentation.scripts()

    @hookimpl(tryfirst=True)
    def devpiserver_get_credentials(self, request: Any) -> tuple[str, str] | None:
        """The session of our own pages, for the one question that is asked before the body of their form is read."""
        if request.path_info == BODY_ROUTE and request.headers.get(ORIGINAL, "").startswith(PREFIX):
            found = session.of(request)
            return (found.user, found.token) if found else None
        return None

    @hookimpl
    def devpiserver_identity_loaded(self, request: Any, identity: Any) -> None:
        changes.note_user(request, identity)

    @hookimpl
    def devpiserver_get_stage_customizer_classes(self) -> list[tuple[str, type]]:
        return [(ordered.TYPE, ordered.Ordered)]


def live(_request: Any) -> Any:
    """``GET /+live``, where nginx does not answer it."""
    return Response("live\n", content_type="text/plain")


def _received(request: Any, name: str) -> bool:
    """Whether a client or a proxy sent a header. nginx replaces ``X-Forwarded-For``, and passes it on as another."""
    if name == "X-Forwarded-For":
        return bool(request.headers.get(FORWARDED_HEADER) or request.environ.get(FORWARDED))
    return name in request.headers


class IdentityView:
    """``GET /+deployer``: identity, versions and state of the server, so that a client knows it before it sends a
    password. Anybody may ask."""

    def __init__(self, config: Any, credentials: Credentials) -> None:
        self._config = config
        self._private = Private.of(Path(config.server_path))
        self._credentials = credentials
        self._writable = True
        self._checked = -WRITE_CHECK_SECONDS

    def __call__(self, request: Any) -> dict[str, Any]:
        uuid = self._config.nodeinfo["uuid"]
        # The command line asks here after it has replaced the file: pages that were refused are fetched again at once.
        self._credentials.refresh()
        request.registry[keys.MALICIOUS].refresh()
        switch = request.registry[keys.SWITCH]
        nonce = request.headers.get(NONCE_HEADER, "")
        sizes = stored.sizes(stored.database(Path(self._config.server_path)))
        cache_bytes, cache_budget = request.registry[keys.CACHE]()
        key = self._private.proof_key.read_text(encoding="ascii").strip() if is_nonce(nonce) else ""
        return About(
            uuid=uuid,
            version=__version__,
            server_version=server_version(),
            default_mirror_url=default_mirror_url(),
            web=self._config.pluginmanager.has_plugin("devpi-web"),
            offline=switch.on,
            challenge=request.registry[keys.CHALLENGE].words,
            writable=self.can_write(),
            free_bytes=secret_files.free_bytes(self._private.directory),
            database_bytes=sizes["bytes"],
            database_unused=sizes["free_bytes"],
            former_bytes=stored.former_bytes(Path(self._config.server_path)),
            cache_bytes=cache_bytes,
            cache_budget=cache_budget,
            front=secret_files.read_text(self._private.front),
            deleted=request.registry[keys.DELETED](request.registry[READING].hidden(request)),
            client=request.client_addr or "",
            received=tuple(name for name in PASSED_ON if _received(request, name)),
            proof=server_proof(key, nonce=nonce, uuid=uuid) if key else None,
        ).json

    def ready(self, _request: Any) -> Any:
        """``GET /+ready``. The transaction that devpi has opened for it has read the database."""
        if self.can_write():
            return Response("ready\n", content_type="text/plain")
        return Response("the server directory can't be written\n", status=503, content_type="text/plain")

    def can_write(self) -> bool:
        """Whether a small file can be written. devpi's `/+api` answers 200 on a full disk, too."""
        if time.monotonic() - self._checked >= WRITE_CHECK_SECONDS:
            self._checked = time.monotonic()
            try:
                with tempfile.TemporaryFile(dir=self._private.directory) as probe:
                    probe.write(bytes(4096))
                    probe.flush()
                    os.fsync(probe.fileno())
                self._writable = True
            except OSError:
                self._writable = False
        return self._writable
