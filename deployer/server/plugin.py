"""The devpi-server plugin: what the server says of itself, so that a client can know it before it sends a password."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from pluggy import HookimplMarker

from deployer import __version__
from deployer.server import assemble, secret_files
from deployer.server.devpi import audit, ordered
from deployer.server.devpi.installed import installed
from deployer.server.secret_files import Private
from deployer.server.upstream import fetching, outbound
from deployer.server.upstream.credentials import Credentials

hookimpl = HookimplMarker("devpiserver")

ROUTE = "/+deployer"
NONCE = "X-Deployer-Nonce"
_NONCE_FORM = re.compile(r"[0-9a-f]{16,128}")
CANARY_SECONDS = 5.0
"""How long the answer of the last write canary holds: a client can't make the server write at will."""


@hookimpl
def devpiserver_pyramid_configure(config: Any, pyramid_config: Any) -> None:
    about = About(config)
    # Registered by devpi before its own routes, so `/{user}` does not take it.
    pyramid_config.add_route(ROUTE, ROUTE)
    pyramid_config.add_view(about, route_name=ROUTE, renderer="json", request_method="GET")
    pyramid_config.add_route(audit.ROUTE, audit.ROUTE)
    pyramid_config.add_view(audit.names, route_name=audit.ROUTE, renderer="json", request_method="GET")
    ordered.install()
    outbound.install()
    fetching.install()
    assemble.put_in_place(pyramid_config, about.credentials)


@hookimpl
def devpiserver_get_stage_customizer_classes() -> list[tuple[str, type]]:
    return [(ordered.TYPE, ordered.Ordered)]


class About:
    """The view of ``/+deployer``: identity, versions, whether the data directory can be written, and the proof."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._private = Private.of(Path(config.server_path))
        self.credentials = Credentials(self._private.credentials)
        self._writable = True
        self._checked = -CANARY_SECONDS

    def __call__(self, request: Any) -> dict[str, Any]:
        uuid = self._config.nodeinfo["uuid"]
        # Whoever replaced the file asks here, so that what was refused for want of it is asked again at once.
        self.credentials.look()
        answer = {
            "uuid": uuid,
            "version": __version__,
            "server_version": _server_version(),
            "default_mirror_url": default_mirror_url(),
            "web": self._config.pluginmanager.has_plugin("devpi-web"),
            "offline": request.registry[assemble.SWITCH].on,
            "challenge": request.registry[assemble.SWITCH].challenge,
            "writable": self._can_write(),
            "free_bytes": self._free_bytes(),
            "front": secret_files.read_text(self._private.front),
        }
        nonce = request.headers.get(NONCE, "")
        if _NONCE_FORM.fullmatch(nonce):
            key = bytes.fromhex(self._private.proof_key.read_text(encoding="ascii").strip())
            answer["proof"] = hmac.new(key, f"{nonce}:{uuid}".encode(), hashlib.sha256).hexdigest()
        return answer

    def _can_write(self) -> bool:
        """Whether a small file can be written: `/+api` answers 200 on a full disk all the same."""
        if time.monotonic() - self._checked >= CANARY_SECONDS:
            self._checked = time.monotonic()
            try:
                with tempfile.TemporaryFile(dir=self._private.directory) as canary:
                    canary.write(bytes(4096))
                    canary.flush()
                    os.fsync(canary.fileno())
                self._writable = True
            except OSError:
                self._writable = False
        return self._writable

    def _free_bytes(self) -> int:
        usage = os.statvfs(self._private.directory)
        return usage.f_bavail * usage.f_frsize


def _server_version() -> str:
    from devpi_server import __version__ as version

    return str(version)


def default_mirror_url() -> str | None:
    """What devpi-server ships as the upstream of ``root/pypi``; None when it no longer says so."""
    from devpi_server import main

    url = getattr(main, "_pypi_ixconfig_default", {}).get(installed().url)
    return url if isinstance(url, str) else None
