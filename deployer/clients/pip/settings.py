"""What pip is told: as lines of its file, and as variables of one command. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deployer.addresses import is_loopback


@dataclass(frozen=True, kw_only=True)
class PipSettings:
    """What pip is told: the address of the index (with ``/+simple/``), and its time-out in seconds."""

    index_url: str = field(repr=False)
    timeout: int

    def values(self) -> dict[str, str]:
        """The settings as pip.conf has them: a host to trust only where pip would refuse to talk to it else."""
        host = _host_to_trust(self.index_url)
        return {
            "index-url": self.index_url,
            "timeout": str(self.timeout),
            **({"trusted-host": host} if host else {}),
        }


def _host_to_trust(url: str) -> str:
    """``host:port`` of a plain http address that is not of this host; empty for all others.

    pip takes ``localhost``, 127.0.0.0/8 and ::1 for safe by itself (SECURE_ORIGINS in its ``network/session.py``);
    a trusted host it also forgives a wrong certificate, so there must not be one without need.
    """
    parts = urlsplit(url)
    return "" if parts.scheme != "http" or is_loopback(url) else parts.netloc.rpartition("@")[2]


def environment(settings: PipSettings) -> dict[str, str]:
    """The variables that point one command at the index, and no file touched: for pip, and for uv.

    pip takes ``--default-timeout`` for another name of ``--timeout``; both are set, for one of them may be set
    already. uv wants the address with ``/+simple/`` as well.
    """
    seconds = str(settings.timeout)
    host = settings.values().get("trusted-host")
    return {
        "PIP_INDEX_URL": settings.index_url,
        "PIP_TIMEOUT": seconds,
        "PIP_DEFAULT_TIMEOUT": seconds,
        **({"PIP_TRUSTED_HOST": host} if host else {}),
        "UV_DEFAULT_INDEX": settings.index_url,
        "UV_HTTP_TIMEOUT": seconds,
    }


def past_the_proxy(settings: PipSettings, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep a proxy out of the way to the index, for which clients ask it, loopback or not."""
    host = urlsplit(settings.index_url).hostname or ""
    known = env.get("no_proxy") or env.get("NO_PROXY") or ""
    # "*" means every host only when it stands alone.
    value = known if known.strip() == "*" else ",".join(filter(None, (known, host)))
    return {"NO_PROXY": value, "no_proxy": value}
