"""The installed devpi-server: its major version, and the names and settings that differ between versions.

Standard library only until :func:`inside` or :func:`default_mirror_url` is called. Code that differs between versions
is in :mod:`version6` and :mod:`version7`, which define the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

from deployer.protocol import ExitCode, Refusal


@dataclass(frozen=True, kw_only=True)
class Devpi:
    """One major version of devpi-server.

    ``layout``: first number of ``.serverversion`` in its server directory. ``tables``: tables that its database always
    has. ``mirror``, ``stage``: its types of a mirror index, and of one with uploads. ``expiry_option``: the option for
    the default of ``expiry``. ``metadata_options``: those with which it serves metadata of uploaded wheels (PEP 658).
    Fields of a mirror: ``url``, its upstream; ``expiry``, the seconds that a page stays fresh; ``no_list``, that the
    list of names is never asked for; ``external``, that clients are sent to the upstream for files.
    """

    major: str
    layout: str
    database: str
    tables: tuple[str, ...]
    mirror: str
    stage: str
    url: str
    expiry: str
    expiry_option: str
    no_list: str
    external: str
    metadata_options: tuple[str, ...]


DEVPI_6 = Devpi(
    major="6",
    layout="4",
    database=".sqlite",
    tables=("kv", "changelog"),
    mirror="mirror",
    stage="stage",
    url="mirror_url",
    expiry="mirror_cache_expiry",
    expiry_option="--mirror-cache-expiry",
    no_list="mirror_no_project_list",
    external="mirror_use_external_urls",
    metadata_options=("--enable-core-metadata",),
)
DEVPI_7 = Devpi(
    major="7",
    layout="5",
    database=".sqlite_alchemy",
    tables=("ulid_info", "ulid_changelog"),
    mirror="remote",
    stage="local",
    url="remote_url",
    expiry="remote_refresh_delay",
    expiry_option="--remote-refresh-delay",
    no_list="remote_no_project_list",
    external="remote_use_external_urls",
    metadata_options=(),
)
KNOWN = (DEVPI_6, DEVPI_7)


@cache
def server_version() -> str:
    """The version of devpi-server, as its distribution states it."""
    return version("devpi-server")


@cache
def installed() -> Devpi:
    """The installed major version. Raises Refusal for an unknown one."""
    found = server_version()
    for known in KNOWN:
        if known.major == found.partition(".")[0]:
            return known
    raise unsupported("this major version is unknown")


@cache
def inside() -> Any:
    """The module with devpi's code for the installed version. Imports devpi-server."""
    return import_module(f"deployer.server.devpi.version{installed().major}")


def default_mirror_url() -> str | None:
    """The upstream of ``root/pypi`` that devpi-server ships; None when it names none. Imports devpi-server."""
    from devpi_server import main

    url = getattr(main, "_pypi_ixconfig_default", {}).get(installed().url)
    return url if isinstance(url, str) else None


def unsupported(why: str) -> Refusal:
    """The refusal of a devpi-server on which deployer's protections would not hold."""
    return Refusal(
        f"unsupported devpi-server {server_version()}: {why}",
        hint="install devpi-server 6.20.2 or newer of 6.20, or 7.0",
        code=ExitCode.REFUSED,
    )
