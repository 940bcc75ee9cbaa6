"""Which devpi-server is installed, and what of a version is no more than data. Standard library only.

What differs in its code is in :mod:`devpi6` and :mod:`devpi7`, which have the same names in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

from deployer.server.refusal import UNSAFE, Refusal


@dataclass(frozen=True, kw_only=True)
class Devpi:
    """One major version. ``layout``: of its server directory, the first number of ``.serverversion``; ``tables``: what
    its database has at least; ``expiry_option``: of the seconds that a mirror's page holds. The others are its words
    for the type and the fields of a mirror."""

    major: str
    layout: str
    database: str
    tables: tuple[str, ...]
    mirror: str
    url: str
    expiry: str
    expiry_option: str


DEVPI_6 = Devpi(
    major="6",
    layout="4",
    database=".sqlite",
    tables=("kv", "changelog"),
    mirror="mirror",
    url="mirror_url",
    expiry="mirror_cache_expiry",
    expiry_option="--mirror-cache-expiry",
)
DEVPI_7 = Devpi(
    major="7",
    layout="5",
    database=".sqlite_alchemy",
    tables=("ulid_info", "ulid_changelog"),
    mirror="remote",
    url="remote_url",
    expiry="remote_refresh_delay",
    expiry_option="--remote-refresh-delay",
)
KNOWN = (DEVPI_6, DEVPI_7)


@cache
def installed() -> Devpi:
    """The one that is here. Raises Refusal for one that nothing is known of."""
    found = version("devpi-server")
    for known in KNOWN:
        if known.major == found.partition(".")[0]:
            return known
    raise Refusal(
        f"devpi-server {found} is not one that this server is made for",
        cure="install devpi-server 6.20.2 or newer, or 7",
        code=UNSAFE,
    )


@cache
def inside() -> Any:
    """The module with what is used of its code. Imports devpi-server."""
    return import_module(f"deployer.server.devpi.version{installed().major}")
