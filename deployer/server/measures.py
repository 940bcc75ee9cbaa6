"""What the assembled server knows for Prometheus, besides what the access log tells."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from deployer import __version__
from deployer.server import secret_files
from deployer.server.assemble import keys
from deployer.server.devpi import stored
from deployer.server.devpi.installed import server_version
from deployer.server.nginx import certificate, statistics
from deployer.server.nginx.metrics import Measured, UpstreamMeasured
from deployer.server.secret_files import Private


def measured(config: Any, registry: Any, *, can_write: Callable[[], bool]) -> Measured:
    """The numbers now."""
    serverdir = Path(config.server_path)
    private = Private.of(serverdir)
    disk = os.statvfs(private.directory)
    return Measured(
        build=(__version__, server_version(), _front(secret_files.read_text(private.front) or "")),
        upstreams=tuple(
            UpstreamMeasured(
                origin=one.origin, requests=one.requests, up=not one.failing, asking=one.asking, seconds=one.seconds
            )
            for one in registry[statistics.UPSTREAMS].known
        ),
        writable=can_write(),
        offline=registry[keys.SWITCH].on,
        cache=registry[keys.CACHE](),
        database=stored.sizes(stored.database(serverdir))["bytes"],
        free=secret_files.free_bytes(private.directory),
        size=disk.f_blocks * disk.f_frsize,
        backup=_backup(private.backup),
        certificate=certificate.expiry(private.tls),
        quotas=registry[keys.ACTIVITY].quotas(),
        threads=registry[keys.ACTIVITY].threads(),
        member=registry[keys.MEMBER]() if keys.MEMBER in registry else None,
    )


def _front(told: str) -> str:
    """``nginx 1.22.1`` or ``python``, without where it is from or why there is no nginx."""
    return told.split(" (")[0].split(":")[0].strip()


def _backup(path: Path) -> float | None:
    """When the last backup was completed, in seconds since the epoch."""
    from deployer.server.web.drift import last_backup  # late, as all that the pages need

    last = last_backup(path)
    try:
        return None if last is None else datetime.fromisoformat(last["created"]).timestamp()
    except ValueError:
        return None
