"""Client files of a deployment: what they are to say, and writing them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from deployer.clients import pip
from deployer.clients.pip import ClientChange, PipSettings
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError

if TYPE_CHECKING:
    from deployer.plan import Plan
    from deployer.ui.output import UI


def pip_settings(plan: Plan) -> PipSettings:
    """Return what pip is to be told of a planned deployment."""
    return PipSettings(index_url=plan.simple_url, timeout=plan.clients.timeout)


def preview(plan: Plan) -> ClientChange | None:
    """Return the change of pip's file that ``up`` would make; None where the profile leaves pip alone.

    Raises ClientFileError when the file can't be written.
    """
    if "pip" not in plan.clients.configure:
        return None
    return pip.preview(pip_settings(plan), scope=plan.clients.scope, env=os.environ)


def configure(plan: Plan, ui: UI) -> list[ClientChange]:
    """Write the client files that the profile names. Raises ClientFileError."""
    made = []
    for client in plan.clients.configure:
        change = pip.configure(pip_settings(plan), scope=plan.clients.scope, env=os.environ)
        ui.step(
            client,
            f"{change.path}: "
            + ("index-url, timeout (undo: deployer configure-pip --undo)" if change.changed else "unchanged"),
        )
        for warning in (*change.masks, *change.warnings):
            ui.warn(warning)
        made.append(change)
    return made


def settings_for(name: str, *, index: str = "", url: str = "", timeout: int | None = None) -> PipSettings:
    """Return what pip is to be told of the deployment ``name``, or of ``url``; ``timeout`` in seconds.

    Raises ConflictError when there is no such deployment and no ``url`` either.
    """
    applied = read_applied(name)
    chosen = url or (applied.simple_url if applied else "")
    if not chosen:
        raise ConflictError(f"there is no deployment named {name!r}", hint="deployer up, or give --url URL")
    if index and not url:
        base = chosen.rsplit("/", 4)[0]
        chosen = f"{base}/{index}/+simple/"
    clients = applied.profile.get("clients", {}) if applied else {}
    return PipSettings(index_url=chosen, timeout=timeout or int(clients.get("timeout", 60)))


def scope_of(name: str) -> str:
    """Return the scope (user, global, ...) of the client files that the last ``up`` of ``name`` wrote."""
    applied = read_applied(name)
    return str(applied.profile.get("clients", {}).get("scope", "user")) if applied else "user"
