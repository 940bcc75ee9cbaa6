"""Addresses of the web as people write them, and whether one is of this host. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def split(url: str) -> SplitResult | None:
    """The parts of an ``http://`` or ``https://`` address; ``None`` for what is none: brackets that do not match, no
    host, a port that no host has."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def is_loopback(url: str) -> bool:
    """Whether ``url``, of any scheme, is of this very host: ``localhost``, 127.0.0.0/8 or ::1."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
