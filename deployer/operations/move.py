"""Move the data of a deployment: our own image copies and verifies it while the server is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from deployer.deployment.find import Deployment, require
from deployer.diagnosis import size
from deployer.errors import ConflictError, DeployerError, EngineError, of_refusal
from deployer.operations.admit import admit
from deployer.operations.apply import make_data, undo
from deployer.operations.images import have_image
from deployer.operations.once import on_stopped_data
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.purge import purge
from deployer.operations.recorded import as_deployed
from deployer.operations.start import check_data, report_rollback
from deployer.operations.up import Outcome, bring_up
from deployer.plan import own_image
from deployer.protocol import FINAL, Copied, Refusal, parsed
from deployer.spec import ContainerSpec, EngineName, ExecResult, Mount, State
from deployer.typed import built

if TYPE_CHECKING:
    from deployer.profile.load.overrides import Override
    from deployer.ui.output import UI

TIMEOUT = timedelta(days=1)
"""Limit of a copy: large data on a slow disk takes hours."""


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Old and new location of the data, what was copied, and the outcome of the start on the copy."""

    source: Mount
    target: Mount
    copied: Copied
    outcome: Outcome


def move(
    profile: str, name: str, *, overrides: Sequence[Override], engine: str = "", delete_old: bool = False, ui: UI
) -> Moved:
    """Copy the data to the location in ``overrides`` (key ``data``) and start on the copy. The caller holds the lock.

    A failure rolls back: the server runs again on its old data. The old data stays unless ``delete_old``.
    """
    deployment = require(name, engine=engine)
    if deployment.server_dir is None:
        raise ConflictError(f"{name} has no data directory to move", hint="deployer status")
    check_data(deployment)
    source = deployment.server_dir.mount
    ref, all_overrides = as_deployed(profile, name, overrides)
    # Every refusal comes before the first effect.
    prepared = prepare(ref, name, overrides=all_overrides, replace=False, moving=True)
    target = prepared.plan.spec.mounts[0]
    in_place = target.source == source.source
    doomed = admit(name, source, deployment) if delete_old and not in_place else None
    copied = Copied()
    with ExitStack() as rollback:
        if in_place:  # also when an earlier run was interrupted after the copy
            ui.step("data", f"{source.source} (already there)")
        else:
            _have_copier(prepared, ui)
            if deployment.container.state is not State.STOPPED:
                undo(rollback, _restart, deployment, ui)
                deployment.engine.stop(name, timeout=prepared.plan.spec.stop_timeout)
            make_data(name, prepared.plan.data, prepared.engine, rollback)
            copied = _copy(deployment, source, prepared, ui)
        moved = prepare(ref, name, overrides=all_overrides, replace=False, moving=True)
        outcome = bring_up(moved, ui, rollback, clients=False)
    if doomed is not None:
        purge(doomed, ui)
    elif not in_place:
        ui.step("data", f"{source.source} (kept as it was; nothing uses it any more)")
    return Moved(source=source, target=target, copied=copied, outcome=outcome)


def _restart(deployment: Deployment, ui: UI) -> None:
    deployment.engine.start(deployment.name)
    report_rollback(deployment, ui, where="on the old data")


def _have_copier(prepared: Prepared, ui: UI) -> None:
    """Get our own image, which copies the data even if the deployment runs another one; a process needs none."""
    wanted, images = own_image(prepared.loaded.profile, prepared.facts), prepared.engine.images
    if images is not None:
        have_image(wanted, images.find(wanted.ref), images, ui)


def _copy(deployment: Deployment, source: Mount, prepared: Prepared, ui: UI) -> Copied:
    """Copy and verify the data in a run that sees both locations. Raises what the copy reports."""
    spec = copying(prepared.plan.spec, source, engine=prepared.plan.engine.name, image=prepared.facts.image_ref)
    with ui.working("data", f"copying {source.source} to {prepared.plan.data.source}"):
        done = deployment.engine.once(spec, timeout=TIMEOUT)
    if done.returncode:
        raise _failure(done)
    copied = _copied(done)
    ui.step("data", f"{prepared.plan.data.source}: {copied.files} files, {size(copied.bytes)}, all compared")
    return copied


def _copied(done: ExecResult) -> Copied:
    try:
        return built(Copied, parsed(done.stdout))
    except ValueError:
        raise EngineError("the copy did not answer with JSON", hint="run deployer move again") from None


def _failure(done: ExecResult) -> DeployerError:
    """The error for a copy that failed: its own refusal, if that is how its output ends."""
    lines = done.stderr.splitlines()
    refusal = Refusal.parse(lines)
    if refusal is not None and refusal.code in FINAL:
        return of_refusal(refusal)
    return EngineError(
        f"the copy ended with exit code {done.returncode}",
        hint="fix the cause and run deployer move again",
        details=tuple(lines[-5:]),
    )


def copying(spec: ContainerSpec, source: Mount, *, engine: EngineName, image: str) -> ContainerSpec:
    """Return the run that copies ``source`` to the data of ``spec``, hardened like the server. Pure.

    ``image``: our own image; the deployment may run another one, which can't copy.
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
