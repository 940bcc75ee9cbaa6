"""Go back to the deployment as it was before its last upgrade, with its data of then."""

from __future__ import annotations

import shlex
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from deployer import DISTRIBUTION, __version__
from deployer.deployment.find import Deployment, require
from deployer.errors import ConflictError
from deployer.host.state_dir import state_dir
from deployer.operations.apply import undo
from deployer.operations.backup import make_directory
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.up import bring_up, have_own_image
from deployer.operations.upgrade import common
from deployer.operations.upgrade.forward import check_data_of
from deployer.operations.upgrade.proof import remove_scratch
from deployer.operations.upgrade.record import Upgraded, forget_upgraded, read_upgraded
from deployer.plan.versions import EXTRAS, LAYOUTS
from deployer.profile.load.overrides import Override
from deployer.protocol import OWN_PYTHON
from deployer.spec import EngineName, State

if TYPE_CHECKING:
    from deployer.ui.output import UI

AGAIN = "deployer rollback"


@dataclass(frozen=True, kw_only=True)
class Back:
    """``aside``: the directory of the uploads that the former data lacks, ``lost``: their paths in it.
    ``commands``: upload them again."""

    url: str
    server_version: str
    aside: str
    lost: tuple[str, ...]
    commands: tuple[str, ...]


def former_python(name: str, engine: str = "") -> str:
    """The interpreter that has to run the rollback, where it is another one; empty otherwise. Raises ConflictError."""
    before = read_upgraded(name)
    deployment = require(name, engine=engine)
    if before is None or deployment.engine.name != EngineName.PROCESS:
        return ""
    here = deployment.engine.probe().version
    if here.partition(".")[0] == before.major:
        return ""
    if before.python in ("", OWN_PYTHON[0]) or not Path(before.python).exists():
        new = f"python3 -m venv OLD && OLD/bin/pip install '{DISTRIBUTION}[{EXTRAS[before.major]}]'"
        raise ConflictError(
            f"devpi-server {before.major} is not installed: this environment has {here}",
            hint=f"{new} && OLD/bin/{AGAIN}",
        )
    return before.python


def rollback(name: str, *, engine: str = "", keep_in: Path | None, ui: UI) -> Back:
    """Go back. ``keep_in``: directory for uploads that the former data lacks. The caller holds the lock.

    A failure leaves the upgraded server, or starts it again.
    """
    before = read_upgraded(name)
    if before is None:
        raise ConflictError(f"{name} has no upgrade to go back from", hint="deployer backup restore --replace")
    deployment = require(name, engine=engine)
    check_data_of(deployment)
    prepared = _prepare(deployment, before)
    common.finish_interrupted(deployment, prepared, again=AGAIN)
    if before.deployer != __version__:
        ui.warn(f"{name} was deployed by deployer {before.deployer}, and this is {__version__}")
    remove_scratch(prepared.engine, name)
    prepared = replace(prepared, image=have_own_image(prepared, ui), image_ready=True)
    aside = keep_in or state_dir(name) / f"uploads-{before.kept or 'unfinished'}"
    kept = _kept(prepared, before)
    upgraded = replace(deployment, engine=common.engine_with(prepared.engine, common.interpreter(deployment)))
    with ExitStack() as undoing:
        if kept:
            make_directory(prepared, aside)
            undo(undoing, _forward, upgraded, prepared, before, ui)
            if deployment.container.state is not State.STOPPED:
                prepared.engine.hold(name)
                deployment.engine.stop(name, timeout=prepared.plan.spec.stop_timeout)
            with ui.working("data", prepared.plan.data.source):
                common.run(prepared, "back", again=AGAIN, words=("--set", kept), aside=aside)
            ui.step("data", f"{prepared.plan.data.source}: as before the upgrade")
            prepared = common.stopped(prepared)
        outcome = bring_up(prepared, ui, undoing, clients=False)
    forget_upgraded(name)
    lost = tuple(sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file()))
    commands = _commands(aside, lost, name)
    if lost:
        ui.warn(f"{len(lost)} uploads since the upgrade are not on the index; they are kept in {aside}")
        for command in commands:
            ui.note(command)
    return Back(
        url=outcome.plan.url,
        server_version=before.server_version,
        aside=str(aside) if lost else "",
        lost=lost,
        commands=commands,
    )


def _prepare(deployment: Deployment, before: Upgraded) -> Prepared:
    applied = before.applied
    held = [Override(one.key, one.value, one.source) for one in applied.overrides]
    own = {"engine": applied.engine, "server.version": before.major}
    overrides = [one for one in held if one.key not in own]
    overrides += [Override(key, value, f"--set {key}") for key, value in own.items()]
    return prepare(
        applied.profile_ref,
        deployment.name,
        overrides=overrides,
        replace=True,
        new_data=True,
        adjust=common.with_layout(before.major),
    )


def _kept(prepared: Prepared, before: Upgraded) -> str:
    """The set to go back to; empty when an interrupted rollback, or an upgrade that was not completed, needs none."""
    found = common.run(prepared, "measure", again=AGAIN)
    sets = [str(name) for name in found["kept"]]
    if before.kept:
        return before.kept if before.kept in sets else ""
    changed = LAYOUTS.get(str(found["layout"])) != before.major
    return sets[-1] if changed and sets else ""


def _forward(deployment: Deployment, prepared: Prepared, before: Upgraded, ui: UI) -> None:
    """Undo a rollback that failed: the upgraded data again, and its server."""
    found = common.run(prepared, "measure", again=AGAIN)
    if found["left"] and LAYOUTS.get(str(found["layout"])) == before.major:
        common.run(prepared, "back", again=AGAIN, words=("--set", str(found["left"][-1])))
    common.restart(deployment, ui, where="as upgraded")


def _commands(aside: Path, lost: tuple[str, ...], name: str) -> tuple[str, ...]:
    by_index: dict[str, list[str]] = defaultdict(list)
    for path in lost:
        index, _, filename = path.rpartition("/")
        by_index[index].append(shlex.quote(str(aside / index / filename)))
    where = "" if name == "devpi" else f" --name {name}"
    return tuple(
        f"deployer package upload {' '.join(files)} --index {index}{where}" for index, files in by_index.items()
    )
