"""The environment of a transparent command. Pure: what clients are configured to do is passed in.

A setting that leads past the tunnel is replaced by a variable where the client has one that beats it. Otherwise it is
refused, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from deployer.addresses import split
from deployer.clients.transparent.roots import OPENSSL, REQUESTS
from deployer.clients.transparent.routes import HTTPS, Host, Mirror, entries, is_exempt
from deployer.clients.transparent.settings import PDM, POETRY, UV, Settings
from deployer.clients.variables import Changes
from deployer.errors import Refused
from deployer.secrets import mask_url

_HTTPS_PROXY = ("https_proxy", "HTTPS_PROXY")
_ALL_PROXY = ("all_proxy", "ALL_PROXY")
_HTTP_PROXY = ("http_proxy", "HTTP_PROXY")
_NO_PROXY = ("no_proxy", "NO_PROXY")
_INDEX_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "pip": ("PIP_INDEX_URL", "PIP_PYPI_URL", "PIP_I"),
    UV: ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    PDM: ("PDM_PYPI_URL",),
    POETRY: ("POETRY_PYPI_MIRROR_URL", "POETRY_PLUGINS_PYPI_MIRROR_URL"),
}
"""The variables of each client for its main index; the first beats its files."""


@dataclass(frozen=True, kw_only=True)
class Chain:
    """The proxies that clients were to use, and for which hosts none: the tunnel uses them so."""

    https: str = field(default="", repr=False)
    http: str = field(default="", repr=False)
    no_proxy: str = ""


def chain(env: Mapping[str, str], settings: Settings) -> Chain:
    """The proxies of an environment, pip's own last. Raises Refused for a kind that can't be chained to."""
    https = _given(env, *_HTTPS_PROXY, *_ALL_PROXY) or settings.pip_proxy
    http = _given(env, "http_proxy", *_ALL_PROXY) or settings.pip_proxy
    found = []
    for proxy in (https, http):
        address = proxy if "://" in proxy or not proxy else f"http://{proxy}"
        parts = split(address)
        if address and (parts is None or parts.scheme != "http"):
            raise Refused(
                f"a transparent command can't use the proxy {mask_url(proxy)}: it is no http:// proxy",
                hint="set HTTPS_PROXY and https_proxy to an http:// proxy, or run it without --transparent",
            )
        found.append(address)
    return Chain(https=found[0], http=found[1], no_proxy=_given(env, *_NO_PROXY))


def _given(env: Mapping[str, str], *names: str) -> str:
    return next((env[name].strip() for name in names if env.get(name, "").strip()), "")


def indexes(settings: Settings, *, mirrors: Sequence[Mirror], server: str, default: str) -> Changes:
    """The variables that have each client use an upstream as its main index.

    ``server``: address of the index's server. ``default``: the index that clients use without any setting. Raises
    Refused for a setting that leads past the tunnel.
    """
    names = {host for mirror in mirrors for host in mirror.hosts}
    main = next((mirror for mirror in mirrors if _same(mirror.url, default)), mirrors[0])
    refuse_files(settings)
    values: dict[str, str] = {}
    removed: list[str] = []
    warnings: list[str] = []
    for client, setting in settings.indexes.items():
        if setting.project:
            continue
        address = _unnamed(setting.value)
        if _is_at(address, server):
            first, *others = _INDEX_VARIABLES[client]
            removed += others
            if setting.variable and main.url and _same(main.url, default):
                removed.append(first)
            else:
                values[first] = main.url.rstrip("/")
        elif _host(address) not in names:
            raise Refused(
                f"{setting.source} ({mask_url(address)}) leads past the index: no mirror of it has that upstream",
                hint="remove that setting, or mirror its index: deployer mirror create USER/NAME URL",
            )
    if _host(default) not in names and not settings.indexes:
        warnings.append(
            f"no mirror of the index has the upstream {default}, the default of clients: requests for it are not cached"
        )
    for setting in settings.extra:
        for address in map(_unnamed, setting.value.split()):
            if _is_at(address, server):
                warnings.append(f"{setting.source} is the index itself: a lock file gets that address")
            elif _host(address) not in names:
                warnings.append(f"{setting.source} ({mask_url(address)}) is no upstream of the index: it is not cached")
    return Changes(values=values, removed=tuple(removed), warnings=tuple(warnings))


def refuse_files(settings: Settings) -> None:
    """Raises Refused for a key of a client's file that beats every variable."""
    for setting, what in (
        *((one, "the proxy of every variable") for one in settings.proxies),
        *((one, "the CA bundle of every variable") for one in settings.roots),
    ):
        raise Refused(
            f"{setting.source} beats {what}, so its client would go past the index",
            hint=f"remove {setting.source}; the variables HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE do the same",
        )


def proxied(
    env: Mapping[str, str],
    settings: Settings,
    *,
    mirrors: Sequence[Mirror],
    proxy: str,
    bundles: Mapping[str, Path],
) -> Changes:
    """The proxy and CA variables of every client for the tunnel at the address ``proxy``.

    ``bundles``: by the variables :data:`OPENSSL` and the first of :data:`REQUESTS`.
    """
    values = dict.fromkeys(_HTTPS_PROXY, proxy)
    removed: list[str] = []
    if settings.pip_proxy or env.get("PIP_PROXY"):
        values["PIP_PROXY"] = proxy  # pip's own setting beats the variables of all
    kept = without_hosts(_given(env, *_NO_PROXY), {host for mirror in mirrors for host in mirror.hosts})
    if kept is None:  # no proxy at all: for http, too
        removed += [*_HTTP_PROXY, *_NO_PROXY]
    else:
        values |= dict.fromkeys(_NO_PROXY, kept)
    requests = str(bundles[REQUESTS[0]])
    values |= {OPENSSL: str(bundles[OPENSSL]), **dict.fromkeys((*REQUESTS, "PIP_CERT"), requests)}
    return Changes(values=values, removed=tuple(removed))


def without_hosts(no_proxy: str, hosts: set[Host]) -> str | None:
    """``NO_PROXY`` without the entries that cover one of ``hosts``; None when it stands for every host.

    The tunnel knows the whole value, and uses no proxy for the other hosts of such an entry.
    """
    found = entries(no_proxy)
    if "*" in found:
        return None
    return ",".join(entry for entry in found if not any(is_exempt(entry, *host) for host in hosts))


def _host(url: str) -> Host | None:
    parts = split(url)
    if parts is None or parts.scheme != "https":
        return None
    return parts.hostname or "", parts.port or HTTPS


def _unnamed(address: str) -> str:
    """An address without the name that uv's ``NAME=URL`` gives to an index."""
    name, _, rest = address.partition("=")
    return rest if "://" in rest and "/" not in name else address


def _same(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")


def _is_at(url: str, server: str) -> bool:
    """Whether an address is one of the index's server."""
    parts, ours = split(url), urlsplit(server)
    if parts is None:
        return False
    loopback = {"localhost", "127.0.0.1", "::1"}
    same = parts.hostname == ours.hostname or {parts.hostname, ours.hostname} <= loopback
    return same and (parts.port or _port(parts.scheme)) == (ours.port or _port(ours.scheme))


def _port(scheme: str) -> int:
    return HTTPS if scheme == "https" else 80


def hosts_of(mirrors: Sequence[Mirror]) -> tuple[str, ...]:
    """The names that a certificate has to be for, sorted."""
    return tuple(sorted({host[0] for mirror in mirrors for host in mirror.hosts}))
