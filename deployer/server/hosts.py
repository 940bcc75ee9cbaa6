"""Which ``Host`` header is answered: a web site must not read a loopback-only index by DNS rebinding.

A site that an operator visits can make its own DNS name point to 127.0.0.1; the browser then lets it read what our
port answers. The request still has the site's name as ``Host``. An IP address can't be a site's name, and neither can
a name without a dot: those need no list, and so health checks, published ports and container names always work.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

NAME = "deployer-hosts"
ANY = "*"
"""Entry of the list that switches the check off."""
ASKED_HOST = "deployer.host"
"""Key of a WSGI environment: the ``Host`` header as the client sent it."""
MISDIRECTED = 421
"""Misdirected Request (RFC 9110, 15.5.20)."""
REFUSED = "this server is not known by the host name of this URL: add it to network.hosts of the profile"
_SELF = (
    r"[a-z0-9_-]+",  # no dot
    r"(?:[a-z0-9_-]+\.)+localhost",  # RFC 6761
    r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}",
    r"\[[0-9a-f:.]+\]",
)
_PORT = re.compile(r"\.?(?::[0-9]*)?$")


@dataclass(frozen=True)
class KnownHosts:
    """The names, in lower case, besides those that need no list. Registered as a devpi plugin, like push targets."""

    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, listed: Iterable[str], *, outside_url: str) -> KnownHosts:
        """``listed``: names as the operator wrote them. The name of this machine is known, too."""
        outside = urlsplit(outside_url).hostname or ""
        names = {*listed, outside, socket.gethostname()}
        return cls(frozenset(name.lower().rstrip(".") for name in names if name))

    @cached_property
    def pattern(self) -> str:
        """A regular expression of Python and of PCRE for the host alone; an absent one is empty."""
        if ANY in self.names:
            return ".*"
        return f"(?:{'|'.join((*_SELF, *map(re.escape, sorted(self.names))))})?"

    def knows(self, host: str) -> bool:
        """Whether requests with this ``Host`` header are answered."""
        return re.fullmatch(self.pattern, _PORT.sub("", host.strip().lower())) is not None


def known(config: object) -> KnownHosts:
    """The hosts of this server. ``config``: devpi's."""
    found: KnownHosts | None = config.pluginmanager.get_plugin(NAME)  # type: ignore[attr-defined]
    return found or KnownHosts(frozenset({ANY}))
