"""The address that clients use where somebody's proxy stands in front, and what is believed of that proxy.

A proxy may pass the path prefix of that address on, or take it away: both are understood. devpi takes the prefix away
wherever a path begins with its letters (``/pypi`` of ``/pypi-team/dev``, too), so every path that it gets has it once.
``X-Outside-URL`` is never read: any client could send it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

NAME = "deployer-outside"
FORWARDED = "deployer.forwarded"
"""Key of a WSGI environment: the ``X-Forwarded-For`` that the client sent, where nginx does not stand before devpi."""
_HEADER = "HTTP_X_OUTSIDE_URL"


@dataclass(frozen=True)
class Outside:
    """``url``: without a slash at its end; empty without a proxy. ``trusted``: proxies whose ``X-Forwarded-For`` is
    believed. Registered as a devpi plugin, like push targets."""

    url: str = ""
    trusted: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, url: str, trusted: Iterable[str] = ()) -> Outside:
        """Raises ValueError for an invalid network."""
        return cls(url.rstrip("/"), tuple(ip_network(one) for one in trusted))

    @property
    def prefix(self) -> str:
        """The path of the address: empty, or ``/pypi``."""
        return urlsplit(self.url).path

    def own(self, path: str) -> str:
        """The path on this server."""
        return path.removeprefix(self.prefix) or "/" if self._has(path) else path

    def _has(self, path: str) -> bool:
        return bool(self.prefix) and f"{path}/".startswith(f"{self.prefix}/")

    def settle(self, environ: dict[str, Any], *, peer: bool) -> None:
        """Prepare a request for devpi. ``peer``: who sent it is the client, or its proxy, and not our own nginx."""
        environ.pop(_HEADER, None)
        path = environ["PATH_INFO"]
        environ["PATH_INFO"] = path if not self.prefix or self._has(path) else self.prefix + path
        if peer:
            environ[FORWARDED] = environ.get("HTTP_X_FORWARDED_FOR", "")
            environ.pop("HTTP_X_DEPLOYER_FORWARDED", None)
            environ["REMOTE_ADDR"] = self.client(environ["REMOTE_ADDR"], environ.get("HTTP_X_FORWARDED_FOR", ""))

    def client(self, address: str, forwarded: str) -> str:
        """The last address in a chain of proxies that is not one of ours, as nginx finds it (``real_ip_recursive``)."""
        for one in (*reversed(forwarded.split(",")), ""):
            try:
                trusted = any(ip_address(address) in network for network in self.trusted)
                following = str(ip_address(one.strip()))
            except ValueError:
                return address
            if not trusted:
                return address
            address = following
        return address


def given(config: Any) -> Outside:
    """The address of this server. ``config``: devpi's."""
    found: Outside | None = config.pluginmanager.get_plugin(NAME)
    return found or Outside()
