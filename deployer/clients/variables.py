"""Pointing one command at the index through its environment; no file is touched."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deployer.clients.client import Account, ClientSettings
from deployer.clients.registry import CLIENTS


@dataclass(frozen=True, kw_only=True)
class Changes:
    """Variables of a command: ``values`` to set, ``removed`` to unset; ``warnings`` for the user."""

    values: Mapping[str, str] = field(repr=False)
    removed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def applied(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment with these changes."""
        return {name: value for name, value in env.items() if name not in self.removed} | dict(self.values)

    def for_shell(self) -> str:
        """The same as commands of a POSIX shell."""
        unset = [f"unset {name}" for name in self.removed]
        return "\n".join([*unset, *(f"export {name}={shlex.quote(value)}" for name, value in self.values.items())])

    def for_github(self, delimiter: str) -> str:
        """The same as lines of the file ``GITHUB_ENV``, which can't unset: a removed variable is empty there.

        ``delimiter``: a line that no value has.
        """
        values = dict.fromkeys(self.removed, "") | dict(self.values)
        return "\n".join(f"{name}<<{delimiter}\n{value}\n{delimiter}" for name, value in values.items())


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
