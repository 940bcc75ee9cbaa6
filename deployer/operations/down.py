"""Stop and remove a deployment, and delete the data that nobody keeps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployer.deployment import certificate
from deployer.deployment.find import find
from deployer.deployment.passwords import Passwords
from deployer.deployment.record import forget, forget_data
from deployer.engines.process import ProcessEngine
from deployer.errors import EngineError
from deployer.host.state_dir import state_dir, state_root
from deployer.operations import environment, lifetime, option_files, upstream_probe
from deployer.operations.admit import admit
from deployer.operations.plugins import tidy
from deployer.operations.purge import (
    dangling_client,
    data_of,
    is_there,
    left_service,
    purge,
    remove,
    throw_away,
)
from deployer.ui.prompts import consent

if TYPE_CHECKING:
    from deployer.ui.output import UI


@dataclass(frozen=True, kw_only=True)
class Down:
    """``removed``: containers. ``kept``: where the data is; empty without data. ``purged``: whether it was deleted."""

    removed: Sequence[str]
    kept: str
    purged: bool
    warnings: Sequence[str]


def down(name: str, *, engine: str = "", purging: bool = False, yes: bool = False, ui: UI) -> Down:
    """Stop and remove the server of the deployment ``name``. The caller holds its lock.

    ``purging``: delete the data, too, after a question unless ``yes``. Data that ``up`` has made to be thrown away is
    deleted in any case; then nothing is left to save, so its server is killed at once, and nothing of it is remembered.
    """
    deployment = find(name, engine=engine)
    data = data_of(name, deployment) or lifetime.made(name)
    temporary = throw_away(name, data)
    doomed = admit(name, data, deployment, temporary=temporary) if data and (purging or temporary) else None
    if doomed is not None and not temporary:
        consent(f"{doomed.mount.source} and everything uploaded to it", yes=yes)
    removed = remove(deployment, ui, at_once=temporary) if deployment else []
    if deployment is None:
        with suppress(EngineError):
            ProcessEngine(state_root()).sweep(name)
    if doomed is not None:
        forget_data(name)
    purged = purge(doomed, ui) if doomed is not None else False
    kept = data.source if data is not None and not purged and is_there(data, deployment) else ""
    if kept and removed:
        ui.step("data", f"{kept} (kept; delete it with --purge)")
    lifetime.dismiss(name)
    option_files.forget(name)
    if purging or temporary:
        forget(name)
        upstream_probe.forget(name)
        environment.forget(name)
        tidy(None, state_dir(name))
        Passwords(name=name).forget_all()
        certificate.forget(name)
    if not removed and not purged:
        ui.step("server", f"{name}: nothing to do")
    warnings = (*dangling_client(deployment), *left_service(name)) if removed else ()
    return Down(removed=removed, kept=kept, purged=purged, warnings=warnings)
