"""The environment in which clients use the index, for one command or a shell."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from deployer.clients.client import Account, ClientSettings
from deployer.clients.variables import Changes, past_the_proxy, risks, variables
from deployer.deployment.record import read_applied
from deployer.host.state_dir import state_dir
from deployer.operations.client_files import settings_for
from deployer.operations.logins import missing
from deployer.operations.outage import answering
from deployer.spec import PROXY_VARIABLES

DIRECTORY = "transparent"
"""The directory below a deployment's state that has the certificates and CA bundles of transparent commands."""


def forget(name: str) -> None:
    """Remove what transparent commands of the deployment ``name`` left for the next one."""
    shutil.rmtree(state_dir(name) / DIRECTORY, ignore_errors=True)


def of_command(
    name: str, env: Mapping[str, str], *, owner: int, index: str = "", transparent: bool | None = None
) -> Changes:
    """The variables with which a command uses an index of the deployment ``name``.

    ``transparent``: None for what the profile says. ``owner``: the process with which a tunnel ends. Raises
    ConflictError when there is no such deployment, NotReadyError when its index does not answer, and as
    :func:`deployer.operations.transparent.start`.
    """
    if is_transparent(name) if transparent is None else transparent:
        from deployer.operations.transparent import start

        return start(name, env, owner=owner, index=index, directory=Path.cwd())
    settings, warnings = answering(name, settings_for(name, index=index))
    if not warnings and (line := missing(name, settings.index_url)):
        warnings = (line,)
    changes = pointed(settings, env)
    return replace(changes, warnings=(*warnings, *changes.warnings))


def pointed(settings: ClientSettings, env: Mapping[str, str]) -> Changes:
    """The variables that point clients at the index's own address. Pure but for what the clients' files say."""
    values = variables(settings)
    if any(env.get(name) for name in PROXY_VARIABLES):
        values |= past_the_proxy(settings, env)
    return Changes(values=values, warnings=risks(Account.of(env)))


def is_transparent(name: str) -> bool:
    """Whether the profile of the last ``up`` says so."""
    applied = read_applied(name)
    return applied is not None and applied.profile.get("clients", {}).get("transparent") is True
