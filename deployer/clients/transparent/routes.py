"""Which requests the index answers in place of an upstream, and which hosts a proxy is not for. Pure.

Part of the tunnel's program: standard library only, and of that what is quick to import (dataclasses are not).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import quote, urlsplit

HTTPS = 443
_FILE = re.compile(
    r".*/[^/]+\.(?:whl|zip|tar\.gz|tgz|tar\.bz2|tar\.xz|egg)(?:\.metadata|\.provenance|\.asc)?", re.DOTALL
)
_PROJECT = re.compile(r"[^/]+/?")
_API = re.compile(r"[^/]+/(?:[^/]+/)?json/?")

Host = tuple[str, int]
"""A name in lower case and a port."""


class Mirror(NamedTuple):
    """``view``: path of the mirror's canonical view on the index's server. ``url``: its upstream, with https.
    ``files``: the hosts of its files, as ``NAME`` or ``NAME:PORT``."""

    view: str
    url: str
    files: Sequence[str] = ()

    @property
    def host(self) -> Host:
        return host_of(urlsplit(self.url).netloc)

    @property
    def hosts(self) -> frozenset[Host]:
        return frozenset({self.host, *map(host_of, self.files)})


class Target(NamedTuple):
    """The path of an answer on the index's server; ``is_file``: that it has none is not the upstream's word."""

    path: str
    is_file: bool


def host_of(netloc: str) -> Host:
    """The host and port of ``NAME`` or ``NAME:PORT``; port 443 without one."""
    name, _, port = netloc.rpartition("@")[2].rpartition(":")
    return (name.lower(), int(port)) if name and port.isdecimal() else (netloc.rpartition("@")[2].lower(), HTTPS)


def spelled(host: Host) -> str:
    """A host as in an address: without the port of https."""
    return host[0] if host[1] == HTTPS else f"{host[0]}:{host[1]}"


def view_of(index: str) -> str:
    """The path of the canonical view of a mirror, ``USER/NAME``."""
    return f"/{quote(index)}/+canonical"


def targets(mirrors: Iterable[Mirror], host: Host, path: str) -> tuple[Target, ...]:
    """What may answer for ``path`` at ``host``, the first one first; nothing for what no mirror shows.

    ``path``: with its query, which does not count.
    """
    plain = path.partition("?")[0]
    found = []
    for mirror in mirrors:
        if host == mirror.host and (page := _page(mirror, plain)):
            return (Target(page, False),)
        if host in mirror.hosts and _FILE.fullmatch(plain):
            found.append(Target(f"{mirror.view}/hosts/{spelled(host)}{plain}", True))
    return tuple(found)


def _page(mirror: Mirror, path: str) -> str:
    pages = urlsplit(mirror.url).path
    if path.startswith(pages) and _PROJECT.fullmatch(path[len(pages) :]):
        return f"{mirror.view}/simple/{path[len(pages) :]}"
    root = pages.removesuffix("simple/") + "pypi/"
    if pages.endswith("/simple/") and path.startswith(root) and _API.fullmatch(path[len(root) :]):
        return f"{mirror.view}/pypi/{path[len(root) :]}"
    return ""


def is_exempt(no_proxy: str, host: str, port: int = HTTPS) -> bool:
    """Whether a client with this ``NO_PROXY`` asks ``host`` without its proxy, by the widest of the clients' readings.

    Entries have commas or spaces between them: names with all that is below them, addresses, networks, ``*``.
    """
    return any(_covers(entry, host.lower(), port) for entry in entries(no_proxy))


def entries(no_proxy: str) -> list[str]:
    return no_proxy.replace(",", " ").split()


def _covers(entry: str, host: str, port: int) -> bool:
    name, _, number = entry.lower().rpartition(":")
    if name and number.isdecimal() and ":" not in name:
        if int(number) != port:
            return False
    else:
        name = entry.lower()
    if name == "*":
        return True
    name = name.removeprefix("*").removeprefix(".")
    return host == name or host.endswith(f".{name}") or _in_network(name, host)


def _in_network(network: str, host: str) -> bool:
    if not (host[-1:].isdigit() or ":" in host):
        return False
    from ipaddress import ip_address, ip_network  # only an address of a number needs it

    try:
        return ip_address(host.strip("[]")) in ip_network(network.strip("[]"), strict=False)
    except ValueError:
        return False
