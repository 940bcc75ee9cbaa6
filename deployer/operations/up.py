"""Bring a deployment up: from nothing, or from whatever is there, to an index that answers and clients that use it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from deployer.deployment.credentials import hand_over
from deployer.deployment.find import Deployment
from deployer.deployment.lock import hold
from deployer.deployment.record import Applied, write_applied
from deployer.deployment.secret_refs import authorizations
from deployer.deployment.server_dir import ServerDir
from deployer.devpi.change import Change, Kind
from deployer.diagnosis import Level
from deployer.diagnosis.service import front
from deployer.errors import ConflictError, NotReadyError, Refused, VerificationError
from deployer.host.gather import mark_used
from deployer.host.state_dir import state_root
from deployer.host.untrusted import Untrusted
from deployer.operations import client_files
from deployer.operations.apply import Done, ensure_container, is_current, make_data, settle
from deployer.operations.differences import differences
from deployer.operations.images import have_image, remove_former
from deployer.operations.prepare import Prepared, measured, prepare
from deployer.operations.recorded import dropped_warning
from deployer.operations.seed import required_password, seed
from deployer.operations.start import back
from deployer.plan import Plan
from deployer.plan.facts import Usage
from deployer.readiness import Ready, wait
from deployer.spec import PREVIOUS, Container, State

if TYPE_CHECKING:
    from deployer.clients.configure import ClientChange
    from deployer.profile.load.overrides import Override
    from deployer.ui.output import UI

SAFE_VERSION = "6.20.2"
"""The first devpi-server that keeps its replication data from strangers (its changelog, 6.20.2)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an ``up`` did; ``timings``: seconds by stage."""

    plan: Plan
    done: Done
    timings: Mapping[str, float]
    changes: Sequence[Change]
    client_changes: Sequence[ClientChange]


def up(
    profile: str,
    name: str,
    *,
    overrides: Sequence[Override],
    ui: UI,
    replace: bool = False,
    new_data: bool = False,
    prune: bool = False,
    keep: bool = False,
    clients: bool = True,
    lock_wait: float = 0.0,
) -> Outcome:
    """Bring the deployment ``name`` up as ``profile`` and ``overrides`` say, and wait until it answers.

    ``replace``: a deployment that runs under another profile may be switched. ``new_data``: go on where the recorded
    data is gone. ``prune``: remove users and empty indexes
    that the profile does not name. ``keep``: keep what was made when it fails. ``clients``: write client files.
    ``lock_wait``: seconds to wait for another run. A failure rolls back to what was there.
    """
    with hold(name, wait=lock_wait):
        prepared = prepare(profile, name, overrides=overrides, replace=replace, new_data=new_data)
        warnings = dropped_warning(profile, name, prepared.loaded)
        with ExitStack() as rollback:
            try:
                return bring_up(prepared, ui, rollback, prune=prune, clients=clients, warnings=warnings)
            except BaseException as error:
                if keep:
                    rollback.pop_all()
                    _keep(prepared, error)
                raise


def _keep(prepared: Prepared, error: BaseException) -> None:
    """Leave what failed for a look: its files, its state and its log, but not a server that restarts for ever."""
    plan, engine = prepared.plan, prepared.engine
    if (
        isinstance(error, NotReadyError | ConflictError | VerificationError | Refused)
        and engine.inspect(plan.name) is not None
    ):
        engine.stop(plan.name, timeout=plan.spec.stop_timeout)


def bring_up(
    prepared: Prepared,
    ui: UI,
    rollback: ExitStack,
    *,
    prune: bool = False,
    clients: bool = True,
    warnings: Sequence[str] = (),
) -> Outcome:
    """Start the container as planned; commit the ``rollback`` stack once it is ready. The caller holds the lock."""
    plan, engine = prepared.plan, prepared.engine
    _say_engine(prepared, ui)
    for text in warnings:
        ui.warn(text)
    if clients:
        client_files.preview(plan)  # a file that can't be written is found before anything is started for it
    headers = authorizations(plan.indexes, env=os.environ, home=Path.home())
    current = settle(plan.name, engine, prepared.current, prepared.previous)
    prepared = _decided(prepared, ui)
    plan = prepared.plan
    done = _container(prepared, current, ui, rollback)
    started = time.monotonic()
    with closing_api(_ready(prepared, done, ui)) as ready:
        check_version(plan, ready)
        if plan.image is None or plan.image.own:
            # Before the first request to a mirror: an upstream may answer 404 to a client without credentials.
            hand_over(prepared.server_dir, headers)
        changes = seed(prepared, ready, removing=prune)
        _say_front(plan, ready, ui)
    timings = {**ready.timings, "index": time.monotonic() - started}
    ui.step("ready", f"{plan.url} in {timings['index']:.1f} s   ({_stages(timings)})")
    say_changes(changes, ui)
    # The server is as the profile wants it from here on: a client file that fails does not roll it back.
    rollback.pop_all()
    if done == "recreated":  # the container that was set aside; any other one of that name is not ours to remove
        engine.remove(plan.name + PREVIOUS)
        if current is not None and current.image_id:
            remove_former(engine.images, current.image_id)
    _mark_used(prepared)
    _remember(prepared, ready.identity.uuid)
    client_changes = client_files.configure(plan, ui) if clients else []
    ui.step(
        "try",
        "pip download --no-deps flask"
        if client_changes
        else f"deployer exec --name {plan.name} -- pip download --no-deps flask",
    )
    return Outcome(plan=plan, done=done, timings=timings, changes=changes, client_changes=client_changes)


def say_changes(changes: Sequence[Change], ui: UI) -> None:
    """Show what changed of users and indexes, and what the profile does not name."""
    ui.step("indexes", ", ".join(change.brief for change in changes if change.due) or "unchanged")
    for change in changes:
        if change.kind is Kind.KEPT:
            ui.note(change.text)


@contextmanager
def closing_api(ready: Ready) -> Iterator[Ready]:
    with ready.api:
        yield ready


def _stages(timings: Mapping[str, float]) -> str:
    return " · ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items())


def _say_engine(prepared: Prepared, ui: UI) -> None:
    info, passed = prepared.detection.info, prepared.detection.passed_over
    why = f" ({', '.join(f'{name}: {reason}' for name, reason in passed)})" if passed else ""
    ui.step("engine", f"{info.name} {info.version}{why}")
    for warning in prepared.plan.warnings:
        ui.warn(warning)


def _decided(prepared: Prepared, ui: UI) -> Prepared:
    """Have the network measured where that is still open, with the image that the server runs from."""
    if not prepared.plan.network.open:
        return prepared
    prepared = _image(prepared, ui)
    with ui.working("network", "asking the upstream from a bridged container"):
        decided = measured(prepared)
    if warning := decided.plan.network.warning:
        ui.warn(warning)
    return decided


def _container(prepared: Prepared, current: Container | None, ui: UI, rollback: ExitStack) -> Done:
    plan, engine = prepared.plan, prepared.engine
    if current is not None and is_current(plan, current, prepared.image) and _serves(plan, current):
        _say_container(prepared, Done.UNCHANGED, ui)
        return Done.UNCHANGED
    if plan.image is not None and not prepared.image_ready:
        prepared = _image(prepared, ui)
    if current is not None and not is_current(plan, current, prepared.image):
        for line in differences(prepared):
            ui.note(line)
    # Registered first, it is said last: when everything below has been undone.
    rollback.callback(_undone, prepared, current, ui)
    make_data(plan.name, plan.data, engine, rollback)
    with ui.working("server", "starting"):
        if current is not None and current.state is State.RUNNING and plan.data.begin:
            engine.stop(plan.name, timeout=plan.spec.stop_timeout)  # it runs on data that is gone
            current = engine.inspect(plan.name)
        done = ensure_container(plan, engine, current, prepared.image, rollback)
    _say_container(prepared, done, ui)
    return done


def _serves(plan: Plan, current: Container) -> bool:
    """Whether the container runs, on data that is there."""
    return current.state is State.RUNNING and not plan.data.begin


def _undone(prepared: Prepared, current: Container | None, ui: UI) -> None:
    """Say what there is after a failure; what served clients before has to serve them again."""
    if current is None:
        ui.step("undone", "what was made is removed")
    elif current.state is State.RUNNING:
        former = Deployment(name=current.name, engine=prepared.engine, container=current)
        back(former, ui, where="as before")
    else:
        ui.step("undone", "what was there is back")


def _image(prepared: Prepared, ui: UI) -> Prepared:
    """Return ``prepared`` with the image that the server runs from, if its engine has images."""
    wanted, images = prepared.plan.image, prepared.engine.images
    if wanted is None or images is None:
        return prepared
    image = have_image(wanted, prepared.image, images, ui)
    return replace(prepared, image=image, image_ready=True)


def _say_container(prepared: Prepared, done: Done, ui: UI) -> None:
    plan, data = prepared.plan, prepared.facts.data
    where = f"volume {plan.data.source}" if data is None else str(data.path)
    ui.step("data", where + (" (created)" if plan.data.create and done != "unchanged" else ""))
    reach = plan.network.mode if plan.engine.features.containers else "this host, no container"
    ui.step("network", f"{reach} ({plan.network.reason})")
    ui.step("server", f"{plan.name} {done}")


def _ready(prepared: Prepared, done: Done, ui: UI) -> Ready:
    plan = prepared.plan
    server_dir = prepared.server_dir
    own = plan.image is None or plan.image.own
    with ui.working("ready", plan.url) as progress:
        return wait(
            url=plan.url,
            engine=prepared.engine,
            name=plan.name,
            expected_uuid=lambda: _uuid(server_dir),
            proof_key=server_dir.proof_key,
            # Whoever changes nothing needs no password; logging in costs the server a third of a second.
            credentials=(lambda: required_password(prepared)) if own and done != "unchanged" else None,
            index=None,
            deadline=plan.ready_timeout,
            on_stage=lambda stage, seconds: progress(f"{stage} {seconds:.1f}") if ui.terminal else None,
        )


def check_version(plan: Plan, ready: Ready) -> None:
    """Refuse to show others a server with a known hole. Raises Refused."""
    version = ready.identity.server_version
    if not plan.loopback and Version(version or "0") < Version(SAFE_VERSION):
        raise Refused(
            f"devpi-server {version or 'of an unknown version'} gives replication data to whoever can reach it",
            hint=f"use devpi-server {SAFE_VERSION} or newer, or publish it on 127.0.0.1 only",
        )


def _say_front(plan: Plan, ready: Ready, ui: UI) -> None:
    """Tell what is lost where nginx does not answer clients; of another image nothing is known."""
    if ready.identity.front:
        check = front(ready.identity.front, in_container=plan.image is not None)
        if check.level is Level.WARNING:
            ui.warn(f"{check.evidence}; cure: {check.cure}")


def _uuid(server_dir: ServerDir) -> str:
    """The identity of the data on disk: what answers must be running on exactly this directory."""
    uuid = server_dir.uuid()
    if uuid is None:
        raise VerificationError(
            f"the server answers, but keeps nothing in {server_dir.mount.source}, its {server_dir.mount.target}",
            hint="set image.data_path to the directory where that image keeps its data",
        )
    return uuid


def _mark_used(prepared: Prepared) -> None:
    """Write into a data directory of our own server which deployment uses it, so that no other one deletes it."""
    path, plan = prepared.server_dir.path, prepared.plan
    if path is not None and (plan.image is None or plan.image.own):
        with suppress(OSError, Untrusted):  # a directory that only the container may write; its lock still protects it
            mark_used(path, Usage(name=plan.name, state=str(state_root()), uid=prepared.facts.uid))


def _remember(prepared: Prepared, uuid: str) -> None:
    plan = prepared.plan
    write_applied(
        plan.name,
        Applied(
            profile_name=plan.profile_name,
            profile_ref=prepared.loaded.ref,
            engine=str(plan.engine.name),
            simple_url=plan.simple_url,
            profile=prepared.loaded.profile.model_dump(mode="json"),
            overrides=[asdict(override) for override in prepared.loaded.overrides],
            data_source=plan.data.source,
            data_uuid=uuid,
        ),
    )
