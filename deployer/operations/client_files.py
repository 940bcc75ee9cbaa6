"""Client files of a deployment: their settings, a preview, and writing them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from deployer.clients.client import Account, ClientSettings
from deployer.clients.configure import ClientChange
from deployer.clients.configure import configure as configure_client
from deployer.clients.configure import preview as preview_client
from deployer.clients.registry import CLIENT_FILES
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from deployer.plan import ClientPlan
    from deployer.profile.types import ClientName
    from deployer.ui.output import UI


class Pointed(Protocol):
    """The part of a plan that says where clients are pointed."""

    @property
    def simple_url(self) -> str: ...
    @property
    def clients(self) -> ClientPlan: ...


def _settings(plan: Pointed) -> ClientSettings:
    return ClientSettings(index_url=plan.simple_url, timeout=plan.clients.timeout)


def preview(plan: Pointed) -> dict[ClientName, ClientChange]:
    """Return the changes of client files that ``up`` would make, for the clients that the profile names.

    Raises ClientFileError when a file can't be written.
    """
    account, scope = Account.of(os.environ), plan.clients.scope
    return {
        name: preview_client(CLIENT_FILES[name], _settings(plan), scope=scope, account=account)
        for name in plan.clients.configure
    }


def configure(plan: Pointed, ui: UI) -> list[ClientChange]:
    """Write the client files that the profile names. Raises ClientFileError, Locked."""
    account, made = Account.of(os.environ), []
    for name in plan.clients.configure:
        client = CLIENT_FILES[name]
        change = configure_client(client, _settings(plan), scope=plan.clients.scope, account=account)
        written = f"{', '.join(change.keys)} (undo: {client.undo})"
        ui.step(name, f"{change.path}: {written if change.changed else 'unchanged'}")
        for warning in (*change.masks, *change.warnings):
            ui.warn(warning)
        made.append(change)
    return made


def settings_for(
    name: str, *, index: str = "", url: str = "", timeout: int | None = None, ca: str = ""
) -> ClientSettings:
    """Return the settings of clients of the deployment ``name``, or of ``url``; ``timeout`` in seconds.

    ``ca``: the file of the CA of ``url``.

    Raises ConflictError when there is no such deployment and no ``url`` either, UsageError for a CA without https.
    """
    applied = read_applied(name)
    chosen = url or (applied.simple_url if applied else "")
    if not chosen:
        raise ConflictError(f"there is no deployment named {name!r}", hint="run deployer up, or add --url URL")
    if ca and not chosen.startswith("https:"):
        raise UsageError("--ca is for an https address", hint="add --url https://HOST:PORT/USER/NAME/+simple/")
    if index and not url:
        base = chosen.rsplit("/", 4)[0]
        chosen = f"{base}/{index}/+simple/"
    clients = applied.profile.get("clients", {}) if applied else {}
    return ClientSettings(index_url=chosen, timeout=timeout or int(clients.get("timeout", 60)), ca=ca)


def scope_of(name: str) -> str:
    """Return the scope (user, global, ...) of the client files that the last ``up`` of ``name`` wrote."""
    applied = read_applied(name)
    return str(applied.profile.get("clients", {}).get("scope", "user")) if applied else "user"
