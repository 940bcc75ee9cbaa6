"""Move the data of a deployment to another place: copied and compared by our own image while the server is stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from deployer.deployment.find import Deployment, require
from deployer.diagnosis import size
from deployer.errors import ConflictError, DeployerError, EngineError, of_refusal
from deployer.operations.apply import make_data, undo
from deployer.operations.images import have_image
from deployer.operations.once import on_stopped_data
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.purge import Doomed, purge
from deployer.operations.recorded import as_deployed
from deployer.operations.start import back
from deployer.operations.up import Outcome, bring_up
from deployer.plan import own_image
from deployer.protocol import FINAL, Copied, Refusal
from deployer.spec import ContainerSpec, EngineName, ExecResult, Mount, State

if TYPE_CHECKING:
    from deployer.profile.load.overrides import Override
    from deployer.ui.output import UI

TIMEOUT = timedelta(days=1)
"""How long a copy may take: large data is on slow disks."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Where the data was and is, what was copied, and the ``up`` on the new place."""

    source: Mount
    target: Mount
    copied: Copied
    outcome: Outcome


def move(
    profile: str, name: str, *, overrides: Sequence[Override], engine: str = "", delete_old: bool = False, ui: UI
) -> Moved:
    """Copy the data to the place that ``overrides`` name (key ``data``), and go on there. The caller holds the lock.

    A failure rolls back: the server runs again on its old data. The old data stays unless ``delete_old``.
    """
    deployment = require(name, engine=engine)
    if deployment.server_dir is None:
        raise ConflictError(f"{name} keeps no data that could be moved", hint="deployer status")
    source = deployment.server_dir.mount
    ref, put_over = as_deployed(profile, name, overrides)
    # Every refusal comes here, while nothing has been touched.
    prepared = prepare(ref, name, overrides=put_over, replace=False, moving=True)
    target = prepared.plan.spec.mounts[0]
    there = target.source == source.source
    copied = Copied()
    with ExitStack() as rollback:
        if there:  # also where an earlier run was cut short after the copy: go on from there
            ui.step("data", f"{source.source} (it is there already)")
        else:
            _have_copier(prepared, ui)
            if deployment.container.state is not State.STOPPED:
                undo(rollback, _back, deployment, ui)
                deployment.engine.stop(name, timeout=prepared.plan.spec.stop_timeout)
            make_data(name, prepared.plan.data, prepared.engine, rollback)
            copied = _copy(deployment, source, prepared, ui)
        moved = prepare(ref, name, overrides=put_over, replace=False, moving=True)
        outcome = bring_up(moved, ui, rollback, clients=False)
    if delete_old and not there:
        purge(Doomed(mount=source, engine=deployment.engine if source.kind == "volume" else None, facts=None), ui)
    elif not there:
        ui.step("data", f"{source.source} (kept as it was; nothing uses it any more)")
    return Moved(source=source, target=target, copied=copied, outcome=outcome)


def _back(deployment: Deployment, ui: UI) -> None:
    deployment.engine.start(deployment.name)
    back(deployment, ui, where="where it was")


def _have_copier(prepared: Prepared, ui: UI) -> None:
    """Our own image is what copies, also where another one runs; a process needs none."""
    wanted, images = own_image(prepared.loaded.profile, prepared.facts), prepared.engine.images
    if images is not None:
        have_image(wanted, images.find(wanted.ref), images, ui)


def _copy(deployment: Deployment, source: Mount, prepared: Prepared, ui: UI) -> Copied:
    """Copy and compare where both places are at hand."""
    spec = copying(prepared.plan.spec, source, engine=prepared.plan.engine.name, image=prepared.facts.image_ref)
    with ui.working("data", f"copying {source.source} to {prepared.plan.data.source}"):
        done = deployment.engine.once(spec, timeout=TIMEOUT)
    if done.returncode:
        raise _failure(done)
    copied = Copied.parse(json.loads(done.stdout))
    ui.step("data", f"{prepared.plan.data.source}: {copied.files} files, {size(copied.bytes)}, all compared")
    return copied


def _failure(done: ExecResult) -> DeployerError:
    """The error for a copy that failed: its own refusal, if that is how its output ends."""
    lines = done.stderr.splitlines()
    refusal = Refusal.parse(lines)
    if refusal is not None and refusal.code in FINAL:
        return of_refusal(refusal)
    return EngineError(
        f"the copy ended with exit code {done.returncode}",
        hint="the server goes on where it was",
        details=tuple(lines[-5:]),
    )


def copying(spec: ContainerSpec, source: Mount, *, engine: EngineName, image: str) -> ContainerSpec:
    """Return the run that copies ``source`` to where ``spec`` keeps its data, as hardened as the server itself. Pure.

    ``image``: our own, which can copy; the deployment may run another one.
    """
    target = replace(spec.mounts[0], target="/data")
    return on_stopped_data(
        spec,
        purpose="copy",
        engine=engine,
        image=image,
        mounts=(replace(source, target="/source"), target),
        command=lambda paths: ("copy", "--source", paths[0], "--target", paths[1]),
    )
