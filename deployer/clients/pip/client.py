"""pip as a client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from deployer.addresses import is_loopback
from deployer.clients.client import Account, ClientSettings, Unmerged, Values
from deployer.clients.pip import merging, places, unmerging
from deployer.clients.pip.config import PipConfig
from deployer.clients.pip.reading import read_config
from deployer.clients.text import decode


class Pip:
    """Its file is pip.conf, where the keys in ``[global]`` hold for all commands."""

    name = "pip"
    scopes = ("user", "global", "site", "venv")
    index_key = "index-url"
    command = "deployer configure-pip"
    undo = "deployer configure-pip --undo"
    own_scopes: ClassVar = {"user": "user", "environment": "venv", "machine": "global"}

    def variables(self, settings: ClientSettings) -> Values:
        """``PIP_DEFAULT_TIMEOUT`` is another name of ``PIP_TIMEOUT``; both are set, because one may be set already."""
        seconds, host = str(settings.timeout), _host_to_trust(settings.index_url)
        return {
            "PIP_INDEX_URL": settings.index_url,
            "PIP_TIMEOUT": seconds,
            "PIP_DEFAULT_TIMEOUT": seconds,
            **({"PIP_TRUSTED_HOST": host} if host else {}),
            **({"PIP_CERT": settings.ca} if settings.ca else {}),
        }

    def risks(self, account: Account) -> tuple[str, ...]:
        return self.read(account).warnings

    def detect(self, scope: str, account: Account) -> Path:
        return places.target(scope, account)

    def part(self, path: Path) -> str:
        return ""

    def read(self, account: Account) -> PipConfig:
        return read_config(account)

    def values(self, settings: ClientSettings, path: Path | None = None) -> dict[str, str]:
        host = _host_to_trust(settings.index_url)
        return {
            "index-url": settings.index_url,
            "timeout": str(settings.timeout),
            **({"trusted-host": host} if host else {}),
            **({"cert": settings.ca} if settings.ca else {}),
        }

    def cautions(self, settings: ClientSettings) -> tuple[str, ...]:
        host = _host_to_trust(settings.index_url)
        return (f"pip must trust {host}, because the index address is plain http: use https",) if host else ()

    def merge(self, content: bytes, values: Values) -> bytes:
        return merging.merge(decode(content), values).encode()

    def unmerge(self, content: bytes, *, original: bytes, written: Sequence[Values]) -> Unmerged:
        text, kept = unmerging.unmerge(decode(content), original=decode(original), written=written)
        return Unmerged(text.encode(), kept)


def _host_to_trust(url: str) -> str:
    """``host:port`` of a plain http address on another host, which pip refuses without it; empty for all others.

    pip takes ``localhost``, 127.0.0.0/8 and ::1 for secure (SECURE_ORIGINS in its ``network/session.py``). It also
    ignores the certificate of a trusted host, so none is trusted without need.
    """
    parts = urlsplit(url)
    return "" if parts.scheme != "http" or is_loopback(url) else parts.netloc.rpartition("@")[2]
