"""Move the data of a deployment: our own image copies and verifies it while the server is stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from deployer.deployment.find import Deployment, require
from deployer.diagnosis import size
from deployer.errors import ConflictError, EngineError
from deployer.operations.admit import admit
from deployer.operations.apply import make_data, undo
from deployer.operations.once import answer, on_data
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.purge import purge
from deployer.operations.recorded import as_deployed
from deployer.operations.start import check_data, report_rollback
from deployer.operations.up import Outcome, bring_up, have_own_image
from deployer.protocol import Copied
from deployer.spec import ContainerSpec, EngineName, Mount, State
from deployer.typed import built

if TYPE_CHECKING:
    from deployer.profile.load.overrides import Override
    from deployer.ui.output import UI


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
            have_own_image(prepared, ui)
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


def _copy(deployment: Deployment, source: Mount, prepared: Prepared, ui: UI) -> Copied:
    """Copy and verify the data in a run that sees both locations. Raises what the copy reports."""
    spec = copying(prepared.plan.spec, source, engine=prepared.plan.engine.name, image=prepared.facts.image_ref)
    with ui.working("data", f"copying {source.source} to {prepared.plan.data.source}"):
        said = answer(deployment.engine, spec, doing="the copy", again="deployer move")
    copied = _copied(said)
    ui.step("data", f"{prepared.plan.data.source}: {copied.files} files, {size(copied.bytes)}, all compared")
    return copied


def _copied(said: object) -> Copied:
    try:
        return built(Copied, said)
    except ValueError:
        raise EngineError("the copy did not answer with JSON", hint="run deployer move again") from None


def copying(spec: ContainerSpec, source: Mount, *, engine: EngineName, image: str) -> ContainerSpec:
    """Return the run that copies ``source`` to the data of ``spec``, hardened like the server. Pure.

    ``image``: our own image; the deployment may run another one, which can't copy.
    """
    target = replace(spec.mounts[0], target="/data")
    return on_data(
        spec,
        purpose="copy",
        engine=engine,
        image=image,
        mounts=(replace(source, target="/source"), target),
        command=lambda paths: ("copy", "--source", paths[0], "--target", paths[1]),
    )
