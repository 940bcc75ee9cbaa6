"""What both ways share: runs of the server side on the data, the former server, and its interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from deployer.deployment.find import Deployment
from deployer.engines.base import Engine
from deployer.errors import ConflictError, DeployerError
from deployer.operations.once import answer, on_data
from deployer.operations.prepare import Prepared
from deployer.operations.start import report_rollback
from deployer.plan.facts import Facts
from deployer.plan.versions import LAYOUTS
from deployer.protocol import OWN_PYTHON, UpgradePath
from deployer.spec import EngineName, Mount, State

if TYPE_CHECKING:
    from deployer.ui.output import UI

LAYOUTFILE = ".serverversion"


def major_of(deployment: Deployment) -> str:
    """The major version of devpi-server that wrote the data. Raises ConflictError."""
    place = deployment.server_dir
    layout = (place.read(LAYOUTFILE) or "").partition(".")[0] if place is not None else ""
    if layout not in LAYOUTS and not (place is not None and place.read(UpgradePath.SWITCH) is not None):
        raise ConflictError(
            f"the data of {deployment.name} has an unknown layout {layout or '(none)'!r}", hint="deployer doctor"
        )
    return LAYOUTS.get(layout, "")


def with_layout(major: str) -> Callable[[Facts], Facts]:
    """Plan for data of this major version, which it will have."""
    layout = next(layout for layout, known in LAYOUTS.items() if known == major)

    def adjusted(facts: Facts) -> Facts:
        return replace(facts, data=replace(facts.data, layout=layout)) if facts.data is not None else facts

    return adjusted


def run(
    prepared: Prepared, action: str, *, again: str, words: tuple[str, ...] = (), aside: Path | None = None
) -> dict[str, Any]:
    """Run one action of the server side on the data. Raises what it reports."""
    mounts = [replace(prepared.plan.spec.mounts[0], target="/data")]
    if aside is not None:
        mounts.append(Mount(kind="bind", source=str(aside), target="/aside", relabel=prepared.facts.selinux))
    spec = on_data(
        prepared.plan.spec,
        purpose="convert",
        engine=prepared.plan.engine.name,
        image=prepared.facts.image_ref,
        mounts=mounts,
        command=lambda paths: (
            *("upgrade", action, "--serverdir", paths[0], *words),
            *(("--aside", paths[1]) if aside is not None else ()),
        ),
    )
    found: dict[str, Any] = answer(prepared.engine, spec, doing=f"the upgrade ({action})", again=again)
    return found


def finish_interrupted(deployment: Deployment, prepared: Prepared, *, again: str) -> None:
    """Finish a change of places that was interrupted: the server is stopped then."""
    place = deployment.server_dir
    if place is not None and place.read(UpgradePath.SWITCH) is not None:
        run(prepared, "resume", again=again)


def interpreter(deployment: Deployment) -> str:
    """The interpreter that a process was started with; empty for a container, and when it is unknown."""
    if deployment.engine.name != EngineName.PROCESS or deployment.container.pid is None:
        return ""
    try:
        words = Path(f"/proc/{deployment.container.pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    return words[0].decode("utf-8", "surrogateescape")


def engine_with(engine: Engine, python: str) -> Engine:
    """The process engine, with servers of another interpreter; any other engine as it is."""
    from deployer.engines.process import ProcessEngine

    if not isinstance(engine, ProcessEngine) or not python or python == OWN_PYTHON[0]:
        return engine
    return engine.served_by(python, *OWN_PYTHON[1:], "-m", "deployer.server")


def stopped(prepared: Prepared) -> Prepared:
    """The same plan, for a server that this run has stopped: it must not be started by another rollback."""
    current = prepared.facts.current
    if current is None:
        return prepared
    return replace(prepared, facts=replace(prepared.facts, current=replace(current, state=State.STOPPED)))


def restart(deployment: Deployment, ui: UI, *, where: str) -> None:
    """Start the former server again, if it ran."""
    if deployment.container.state is State.STOPPED:
        return
    try:
        deployment.engine.start(deployment.name)
    except DeployerError as error:
        ui.warn(f"{deployment.name} can't be started again: {error.message}")
        return
    report_rollback(deployment, ui, where=where)


def run_again(python: str) -> NoReturn:
    """Replace this program by the same command of another interpreter's deployer."""
    sys.stdout.flush()
    os.execv(python, (python, *OWN_PYTHON[1:], "-m", "deployer", *sys.argv[1:]))  # noqa: S606 - an own program
