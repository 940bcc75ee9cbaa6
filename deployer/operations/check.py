"""Check the data of a deployment while it serves, and compact its database while it is stopped."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.deployment.find import Deployment, require
from deployer.deployment.lock import hold
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.operations.apply import undo
from deployer.operations.backup import INSIDE, deployed
from deployer.operations.once import answer, on_data
from deployer.operations.start import answering, check_data, report_rollback
from deployer.operations.up import have_own_image
from deployer.spec import Mount, State

if TYPE_CHECKING:
    from deployer.ui.output import UI

SERVING_RATE = 50 << 20
"""Bytes a second that a check reads while the server serves."""


def check(
    profile: str, name: str, *, engine: str, repair: bool, rate: int | None, backups: Path | None, ui: UI
) -> dict[str, Any]:
    """Check the data; the report of the server side. ``rate``: bytes a second, 0 for no limit.

    ``backups``: a directory of backups, from which a repair takes lost uploads. Raises VerificationError when the
    database is damaged.
    """
    prepared = deployed(profile, name, engine=engine)
    with hold(name, purpose="check"):
        have_own_image(prepared, ui)
        running = prepared.current is not None and prepared.current.state is State.RUNNING
        limit = rate if rate is not None else SERVING_RATE if running else 0
        mounts = [prepared.plan.spec.mounts[0]]
        if backups is not None:
            mounts.append(Mount(kind="bind", source=str(backups), target=INSIDE, relabel=prepared.facts.selinux))
        spec = on_data(
            prepared.plan.spec,
            purpose="check",
            engine=prepared.plan.engine.name,
            image=prepared.facts.image_ref,
            mounts=mounts,
            command=lambda paths: (
                *("examine", "--serverdir", paths[0], "--rate", str(limit)),
                *(("--repair",) if repair else ()),
                *(("--backups", paths[1]) if backups is not None else ()),
            ),
        )
        with ui.working("check", mounts[0].source):
            report: dict[str, Any] = answer(prepared.engine, spec, doing="the check", again="deployer check")
    return report


def compact(profile: str, name: str, *, engine: str, lock_wait: float, ui: UI) -> dict[str, Any]:
    """Stop the server, write its database anew, and start it again if it ran, or if a run that was killed stopped it.

    A failure starts it again, too.
    """
    with hold(name, wait=lock_wait):
        deployment = require(name, engine=engine)
        check_data(deployment)
        prepared = deployed(profile, name, engine=engine)
        have_own_image(prepared, ui)
        spec = on_data(
            prepared.plan.spec,
            purpose="compact",
            engine=prepared.plan.engine.name,
            image=prepared.facts.image_ref,
            mounts=prepared.plan.spec.mounts[:1],
            command=lambda paths: ("compact", "--serverdir", paths[0]),
        )
        paused = state_dir(name) / "compacting"  # the server was stopped for it
        runs = deployment.container.state is not State.STOPPED or paused.exists()
        if runs:
            write_private(paused, "")
        with ExitStack() as rollback:
            if runs:
                rollback.callback(paused.unlink, missing_ok=True)
                undo(rollback, _restart, deployment, ui)
                deployment.engine.stop(name, timeout=prepared.plan.spec.stop_timeout)
            with ui.working("database", "writing it anew"):
                done: dict[str, Any] = answer(prepared.engine, spec, doing="the run", again="deployer compact")
            rollback.pop_all()
        if runs:
            deployment.engine.start(name)
            answering(deployment, prepared.plan.ready_timeout).api.close()
            ui.step("ready", deployment.url)
            paused.unlink(missing_ok=True)
    return done


def _restart(deployment: Deployment, ui: UI) -> None:
    deployment.engine.start(deployment.name)
    report_rollback(deployment, ui, where="on the database as it was")
