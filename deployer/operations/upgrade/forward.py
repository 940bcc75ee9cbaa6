"""Upgrade a deployment: plan, conversion beside the running server, proof, and the switch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from deployer import DISTRIBUTION, __version__
from deployer.deployment.find import Deployment, require
from deployer.deployment.record import read_applied
from deployer.deployment.server_dir import ServerDir
from deployer.devpi.api import DevpiApi
from deployer.diagnosis import size
from deployer.errors import ConflictError, DeployerError, EngineError, ProfileError, Refused, UsageError
from deployer.host.background import meanwhile
from deployer.image import server_version
from deployer.operations.apply import is_current, undo
from deployer.operations.images import fits
from deployer.operations.prepare import Prepared, prepare
from deployer.operations.recorded import as_deployed
from deployer.operations.start import check_data
from deployer.operations.up import bring_up, have_own_image
from deployer.operations.upgrade import common
from deployer.operations.upgrade.proof import prove, remove_scratch
from deployer.operations.upgrade.record import Upgraded, read_upgraded, write_upgraded
from deployer.plan.versions import EXTRAS
from deployer.profile.load import load
from deployer.profile.load.overrides import Override
from deployer.protocol import UpgradePath
from deployer.spec import EngineName, State

if TYPE_CHECKING:
    from deployer.ui.output import UI

AGAIN = "deployer upgrade"
_POLL = 0.1


@dataclass(frozen=True, kw_only=True)
class Change:
    """What an upgrade does. ``before``, ``after``: versions of devpi-server. ``needed``: bytes of the disk."""

    before: str
    after: str
    converts: bool
    due: bool
    database: int = 0
    needed: int = 0
    free: int = 0


@dataclass(frozen=True, kw_only=True)
class Done:
    """``switch_seconds``: from the stop of the old server until the new one was ready. ``kept``: the set that is kept;
    empty where nothing was done."""

    change: Change
    url: str
    uploads: int = 0
    cached: int = 0
    kept: str = ""
    convert_seconds: float = 0.0
    switch_seconds: float = 0.0


def upgrade(profile: str, name: str, *, engine: str = "", to: str = "", only_plan: bool = False, ui: UI) -> Done:
    """Upgrade the deployment ``name``. ``to``: a version of devpi-server; what this deployer brings by default.

    The caller holds the lock. A failure rolls back: the former server runs on, or again, on its data.
    """
    deployment = require(name, engine=engine)
    check_data_of(deployment)
    present = common.major_of(deployment)
    own = (Override("engine", str(deployment.engine.name), "--engine"),)
    ref, held = as_deployed(profile, name, own)
    major = _major(to, deployment, load(ref, overrides=held).profile.server.version)
    version = Override("server.version", major, "--set server.version")
    overrides = (*(one for one in held if one.key != version.key), version)
    prepared = _prepare(ref, name, overrides, major)
    _check_exact(to, prepared)
    common.finish_interrupted(deployment, prepared, again=AGAIN)
    present = present or common.major_of(deployment)
    pending = read_upgraded(name)
    change = _change(deployment, prepared, present, major)
    _show(change, ui)
    if only_plan or not change.due:
        return Done(change=change, url=prepared.plan.url)
    _check(change, deployment, prepared)
    if present == major and pending is not None and pending.to == major and pending.major != major and not pending.kept:
        return _resumed(prepared, pending, change, ui)  # it was killed after the switch
    remove_scratch(prepared.engine, name)
    prepared = replace(prepared, image=have_own_image(prepared, ui), image_ready=True)
    before = Upgraded(
        major=present,
        to=major,
        server_version=change.before,
        deployer=_deployer(deployment),
        python=common.interpreter(deployment) or (pending.python if pending is not None else ""),
        applied=_applied(name),
    )
    if change.converts:
        return _converted(deployment, prepared, ref, overrides, before, change, ui)
    return _snapshotted(deployment, prepared, before, change, ui)


def check_data_of(deployment: Deployment) -> None:
    """Refuse to go on without the data. An interrupted upgrade or rollback may have put another set in its place."""
    place = deployment.server_dir
    if read_upgraded(deployment.name) is None or (place is not None and place.gone and not _switching(place)):
        check_data(deployment)


def _switching(place: ServerDir) -> bool:
    return place.read(UpgradePath.SWITCH) is not None


def _applied(name: str) -> Any:
    applied = read_applied(name)
    if applied is None:
        raise ConflictError(f"there is no record of the last `up` of {name}", hint="deployer up")
    return applied


def _major(to: str, deployment: Deployment, declared: str) -> str:
    found = to.partition(".")[0]
    if not to and deployment.engine.name == EngineName.PROCESS:
        found = deployment.engine.probe().version.partition(".")[0]
    found = found or declared
    if found not in EXTRAS:
        raise UsageError(f"unknown version {to!r} of devpi-server", hint=f"use --to {' or '.join(EXTRAS)}")
    return found


def _prepare(ref: str, name: str, overrides: Sequence[Override], major: str) -> Prepared:
    try:
        return prepare(ref, name, overrides=overrides, replace=False, new_data=True, adjust=common.with_layout(major))
    except EngineError as error:
        if not error.message.startswith("the profile wants devpi-server"):
            raise
        new = f"python3 -m venv NEW && NEW/bin/pip install '{DISTRIBUTION}[{EXTRAS[major]}]'"
        raise EngineError(error.message, hint=f"{new} && NEW/bin/{AGAIN} --to {major}") from None


def _available(prepared: Prepared) -> str:
    """The version of devpi-server that runs after the upgrade."""
    if prepared.engine.name == EngineName.PROCESS:
        return prepared.detection.info.version
    return server_version(prepared.loaded.profile.server.version)


def _check_exact(to: str, prepared: Prepared) -> None:
    available = _available(prepared)
    if "." in to and to != available:
        raise UsageError(f"this deployer brings devpi-server {available}, not {to}", hint=f"{AGAIN} --to {available}")


def _change(deployment: Deployment, prepared: Prepared, present: str, major: str) -> Change:
    running = deployment.container.state is State.RUNNING
    before = _running_version(deployment) if running else ""
    due = present != major or not running or not _is_built(prepared)
    due = due or not is_current(prepared.plan, deployment.container, prepared.image)
    change = Change(
        before=before or f"{present} (stopped)", after=_available(prepared), converts=present != major, due=due
    )
    data = prepared.facts.data
    if data is None:
        return change
    try:
        database = max(file.stat().st_size for file in data.path.glob(".sqlite*"))
    except (OSError, ValueError):
        return change  # another user's: the server side checks
    # A copy, the new database and its journal; the files are links.
    needed = (4 if change.converts else 2) * database + (64 << 20)
    return replace(change, database=database, needed=needed, free=data.free_bytes)


def _is_built(prepared: Prepared) -> bool:
    """Whether the image that the upgrade goes to is there; a process needs none."""
    wanted = prepared.plan.image
    return wanted is None or (prepared.image is not None and fits(wanted, prepared.image))


def _running_version(deployment: Deployment) -> str:
    try:
        with DevpiApi(deployment.url) as api:
            return api.identity().server_version
    except DeployerError:
        return ""


def _deployer(deployment: Deployment) -> str:
    from deployer.spec import LABEL_VERSION

    return deployment.container.labels.get(LABEL_VERSION, __version__)


def _show(change: Change, ui: UI) -> None:
    if not change.due:
        ui.step("upgrade", f"devpi-server {change.before}, nothing to do")
        return
    what = "the data is converted" if change.converts else "the data stays as it is"
    ui.step("upgrade", f"devpi-server {change.before} -> {change.after}; {what}")
    if change.needed:
        ui.step("disk", f"{size(change.needed)} needed, {size(change.free)} free (files are linked)")


def _check(change: Change, deployment: Deployment, prepared: Prepared) -> None:
    """Every refusal, before the first effect."""
    plan = prepared.plan
    if plan.image is not None and not plan.image.own:
        raise Refused(
            f"{plan.name} runs the image {plan.image.ref}, which is not deployer's own",
            hint="leave image.ref out, and run deployer up first",
        )
    if plan.data.kind == "volume" and change.converts:
        raise Refused(
            f"the volume {plan.data.source} can't be converted beside its server",
            hint="move the data to a directory first: deployer move --data PATH",
        )
    if change.needed > change.free > 0 or (change.needed and not change.free):
        raise Refused(
            f"{plan.data.source} has {size(change.free)} free, and the upgrade needs {size(change.needed)}",
            hint="free some space, or move the data: deployer move --data PATH",
        )
    if change.converts:
        for index, settings in plan.indexes.items():
            if set(settings.mirror_whitelist or ()) - {"*"}:
                raise ProfileError(
                    f"{index}: devpi-server 7 has no mirror_whitelist with names",
                    hint=f'set indexes.{index}.mirror_whitelist to [] or ["*"], then deployer up',
                )


def _resumed(prepared: Prepared, pending: Upgraded, change: Change, ui: UI) -> Done:
    """Start the new server on the data that an interrupted run has converted and switched to."""
    kept = str(run_kept(prepared))
    with ExitStack() as rollback:
        outcome = bring_up(prepared, ui, rollback, clients=False)
    write_upgraded(prepared.plan.name, replace(pending, kept=kept))
    return Done(change=change, url=outcome.plan.url, kept=kept)


def run_kept(prepared: Prepared) -> str:
    found = common.run(prepared, "measure", again=AGAIN)["kept"]
    return found[-1] if found else ""


def _snapshotted(deployment: Deployment, prepared: Prepared, before: Upgraded, change: Change, ui: UI) -> Done:
    """Keep a snapshot, then replace the server: the data needs no conversion."""
    with ui.working("snapshot", prepared.plan.data.source):
        kept = str(common.run(prepared, "snapshot", again=AGAIN)["kept"])
    ui.step("snapshot", f"{kept} (files are linked)")
    with ExitStack() as rollback:
        started = time.monotonic()
        outcome = bring_up(prepared, ui, rollback, clients=False)
        seconds = time.monotonic() - started
    write_upgraded(prepared.plan.name, replace(before, kept=kept))
    return Done(change=change, url=outcome.plan.url, kept=kept, switch_seconds=round(seconds, 2))


def _converted(
    deployment: Deployment,
    prepared: Prepared,
    ref: str,
    overrides: Sequence[Override],
    before: Upgraded,
    change: Change,
    ui: UI,
) -> Done:
    name, place = prepared.plan.name, prepared.server_dir
    with ui.working("convert", f"devpi-server {change.before} -> {change.after}") as progress:
        made = _watched(meanwhile(lambda: common.run(prepared, "convert", again=AGAIN)), place, progress)
    left = f", {made['left_out']} cached files are fetched again" if made["left_out"] else ""
    ui.step("convert", f"{made['uploads']} uploads, {made['cached']} cached files in {made['seconds']:.0f} s{left}")
    prove(deployment, prepared, ref, overrides, str(made["wheel"]), ui)
    write_upgraded(name, before)
    with ExitStack() as rollback:
        former = replace(deployment, engine=common.engine_with(prepared.engine, before.python))
        undo(rollback, _return, former, prepared, before.major, ui)
        if deployment.container.state is not State.STOPPED:
            prepared.engine.hold(name)
        finishing = meanwhile(lambda: common.run(prepared, "finish", again=AGAIN))
        with ui.working("switch", "carrying what was committed meanwhile"):
            _wait_held(finishing, place, running=deployment.container.state is State.RUNNING)
        started = time.monotonic()
        if deployment.container.state is not State.STOPPED:
            deployment.engine.stop(name, timeout=prepared.plan.spec.stop_timeout)
        finished = finishing.result()
        outcome = bring_up(common.stopped(prepared), ui, rollback, clients=False)
        seconds = time.monotonic() - started
    kept = str(finished["kept"])
    write_upgraded(name, replace(before, kept=kept))
    ui.step("switch", f"{seconds:.1f} s without a server; the former data is kept (deployer rollback)")
    return Done(
        change=change,
        url=outcome.plan.url,
        uploads=finished["uploads"],
        cached=finished["cached"],
        kept=kept,
        convert_seconds=made["seconds"],
        switch_seconds=round(seconds, 2),
    )


def _watched(running: Future[dict[str, Any]], place: ServerDir, progress: Callable[[str], None]) -> dict[str, Any]:
    """Wait for a run, and show how far it is."""
    while not running.done():
        time.sleep(_POLL)
        try:
            if said := place.read(UpgradePath.PROGRESS):
                progress(said)
        except DeployerError:
            continue
    return running.result()


def _wait_held(finishing: Future[dict[str, Any]], place: ServerDir, *, running: bool) -> None:
    """Wait until commits are held back and the last of them is carried. Raises what the run raises."""
    while running and not finishing.done():
        if place.read(UpgradePath.HELD) is not None:
            return
        time.sleep(_POLL / 5)
    if running:
        finishing.result()  # it failed, or it is done: then nobody ran


def _return(former: Deployment, prepared: Prepared, major: str, ui: UI) -> None:
    """Back to the former data, if the sets have changed places, and to the former server."""
    if common.major_of(former) != major:
        kept = run_kept(prepared)
        common.run(prepared, "back", again="deployer rollback", words=("--set", kept))
        ui.step("rollback", f"{prepared.plan.data.source}: the former data is back")
    common.restart(former, ui, where="as before")
