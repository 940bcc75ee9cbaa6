"""Pointing one command at the index through its environment; no file is touched."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from deployer.clients.client import Account, ClientSettings
from deployer.clients.registry import CLIENTS


def variables(settings: ClientSettings) -> dict[str, str]:
    """The variables that point every known client at the index."""
    return {name: value for client in CLIENTS for name, value in client.variables(settings).items()}


def risks(account: Account) -> tuple[str, ...]:
    """What makes a known client install from other indexes too, one sentence each."""
    return tuple(line for client in CLIENTS for line in client.risks(account))


def past_the_proxy(settings: ClientSettings, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that exempt the index from the proxy, which clients use for loopback addresses, too."""
    host = urlsplit(settings.index_url).hostname or ""
    known = env.get("no_proxy") or env.get("NO_PROXY") or ""
    # "*" means every host only when it stands alone.
    value = known if known.strip() == "*" else ",".join(filter(None, (known, host)))
    return {"NO_PROXY": value, "no_proxy": value}
