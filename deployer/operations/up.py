"""Bring a deployment to the state of its profile, with rollback of a failure."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import Version

from deployer.deployment import settings
from deployer.deployment.credentials import hand_over
from deployer.deployment.find import Deployment
from deployer.deployment.lock import hold
from deployer.deployment.record import Applied, Overridden, write_applied
from deployer.deployment.secret_refs import authorizations
from deployer.deployment.server_dir import ServerDir
from deployer.devpi.change import Change, Kind
from deployer.diagnosis import Level
from deployer.diagnosis.service import front
from deployer.errors import ConflictError, NotReadyError, Refused, VerificationError
from deployer.host.gather import mark_used
from deployer.host.state_dir import state_dir, state_root
from deployer.host.untrusted import Untrusted
from deployer.operations import client_files, lifetime, logins, option_files, tls
from deployer.operations.apply import Done, ensure_container, is_current, make_data, settle, undo
from deployer.operations.differences import differences
from deployer.operations.images import have_image, remove_former
from deployer.operations.plugins import have_environment, tidy
from deployer.operations.prepare import Prepared, measured, prepare
from deployer.operations.recorded import dropped_warning
from deployer.operations.seed import required_password, seed
from deployer.operations.start import report_rollback
from deployer.plan import Plan, own_image
from deployer.plan.facts import Usage
from deployer.protocol import Taken
from deployer.readiness import Ready, wait
from deployer.spec import PREVIOUS, Container, Image, State

if TYPE_CHECKING:
    from deployer.clients.configure import ClientChange
    from deployer.profile.load.overrides import Override
    from deployer.profile.models import Index
    from deployer.ui.output import UI

SAFE_VERSION = "6.20.2"
"""The first devpi-server that protects its replication data (its changelog, 6.20.2)."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of ``up``; ``timings``: seconds by stage."""

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
    """Bring the deployment ``name`` to the state of ``profile`` with ``overrides``, and wait until it is ready.

    ``replace``: allow to replace a deployment of another profile. ``new_data``: the user accepts that the recorded data
    is gone. ``prune``: remove users and empty indexes that are not in the profile. ``keep``: do not roll back a
    failure. ``clients``: write client files. ``lock_wait``: seconds to wait for the lock. A failure rolls back to the
    previous state.
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
                    _stop_failed(prepared, error)
                raise


def _stop_failed(prepared: Prepared, error: BaseException) -> None:
    """Stop a failed server that is kept for diagnosis, so that it does not restart in a loop."""
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
    _show_engine(prepared, ui)
    for text in warnings:
        ui.warn(text)
    if clients:
        client_files.preview(plan)  # refuse an unwritable file before the first effect
    headers = authorizations(plan.indexes, env=os.environ, home=Path.home())
    files = option_files.contents(plan.plugins, env=os.environ, home=Path.home())
    current = settle(plan.name, engine, prepared.current, prepared.previous)
    prepared = _decided(prepared, ui)
    plan = prepared.plan
    _limit_lifetime(prepared, rollback)
    _have_plugins(plan, ui)
    stale = option_files.write(plan.plugins, files, rollback)
    given = tls.obtain(prepared, rollback)
    done = _container(prepared, current, given, ui, rollback)
    if stale and done is Done.UNCHANGED:
        _read_again(prepared)
    started = time.monotonic()
    with closing_api(_ready(prepared, done, ui)) as ready:
        check_version(plan, ready)
        if plan.image is None or plan.image.own:
            # Before the first request to a mirror: an upstream may answer 404 without credentials.
            hand_over(prepared.server_dir, headers)
        changes = seed(prepared, ready, removing=prune)
        _warn_front(plan, ready, ui)
        _show_outside(prepared, ready, ui)
    if given is not None:
        given.wait(ui)
    timings = {**ready.timings, "index": time.monotonic() - started}
    ui.step("ready", f"{plan.url} in {timings['index']:.1f} s   ({_stages(timings)})")
    show_changes(changes, prepared.plan.indexes, ui)
    # The server is complete: a failed client file does not roll it back.
    rollback.pop_all()
    if done == "recreated":  # otherwise a container of that name may not be ours
        engine.remove(plan.name + PREVIOUS)
        if current is not None and current.image_id:
            remove_former(engine.images, current.image_id, ref=plan.image.ref if plan.image is not None else "")
    tidy(plan.plugins, state_dir(plan.name))
    _mark_used(prepared)
    _remember(prepared, ready.identity.uuid)
    client_changes = client_files.configure(plan, ui) if clients else []
    if client_changes:
        logins.ensure(plan.name, plan.simple_url, ui)
    ui.step(
        "try",
        "pip download --no-deps flask"
        if client_changes
        else f"deployer exec --name {plan.name} -- pip download --no-deps flask",
    )
    return Outcome(plan=plan, done=done, timings=timings, changes=changes, client_changes=client_changes)


def show_changes(changes: Sequence[Change], indexes: Mapping[str, Index], ui: UI) -> None:
    """Show the changes of users and indexes, those that are not in the profile, and what else a change needs."""
    ui.step("indexes", ", ".join(change.brief for change in changes if change.due) or "unchanged")
    for change in changes:
        if change.kind is Kind.KEPT:
            ui.note(change.text)
        if change.kind is Kind.MODIFY_INDEX and "bases" in change.values and indexes[change.target].type == "ordered":
            ui.note(
                f"{change.target}: a project that another base would serve now is refused until "
                f"`deployer index accept {change.target}`"
            )


@contextmanager
def closing_api(ready: Ready) -> Iterator[Ready]:
    with ready.api:
        yield ready


def _stages(timings: Mapping[str, float]) -> str:
    return " · ".join(f"{stage} {seconds:.1f}" for stage, seconds in timings.items())


def _show_engine(prepared: Prepared, ui: UI) -> None:
    info, passed = prepared.detection.info, prepared.detection.passed_over
    why = f" ({', '.join(f'{name}: {reason}' for name, reason in passed)})" if passed else ""
    ui.step("engine", f"{info.name} {info.version}{why}")
    for warning in prepared.plan.warnings:
        ui.warn(warning)


def _decided(prepared: Prepared, ui: UI) -> Prepared:
    """Measure the network with the server's image if its mode is undecided."""
    if not prepared.plan.network.open:
        return prepared
    prepared = _image(prepared, ui)
    with ui.working("network", "asking the upstream from a bridged container"):
        decided = measured(prepared)
    if warning := decided.plan.network.warning:
        ui.warn(warning)
    return decided


def _container(
    prepared: Prepared, current: Container | None, given: tls.Given | None, ui: UI, rollback: ExitStack
) -> Done:
    plan, engine = prepared.plan, prepared.engine
    if current is not None and is_current(plan, current, prepared.image) and _serves(plan, current):
        if given is not None:
            given.hand_over(rollback)
        _show_container(prepared, Done.UNCHANGED, ui)
        return Done.UNCHANGED
    if plan.image is not None and not prepared.image_ready:
        prepared = _image(prepared, ui)
    if current is not None and not is_current(plan, current, prepared.image):
        for line in differences(prepared):
            ui.note(line)
    # Registered first: runs last, when everything below is rolled back.
    rollback.callback(_show_rollback, prepared, current, ui)
    make_data(plan.name, plan.data, engine, rollback)
    if given is not None:
        given.hand_over_early(rollback)
    with ui.working("server", "starting"):
        if current is not None and current.state is State.RUNNING and plan.data.begin:
            engine.stop(plan.name, timeout=plan.spec.stop_timeout)  # its data is gone
            current = engine.inspect(plan.name)
        done = ensure_container(plan, engine, current, prepared.image, rollback)
        if given is not None:
            given.hand_over_late(rollback)
    _show_container(prepared, done, ui)
    return done


def _limit_lifetime(prepared: Prepared, rollback: ExitStack) -> None:
    """Before anything is created: whatever kills this run takes down what it has created."""
    name, profile = prepared.plan.name, prepared.loaded.profile
    if profile.server.lifetime != "job":
        lifetime.dismiss(name)
    elif not lifetime.is_watched(name):
        undo(rollback, lifetime.dismiss, name)
        lifetime.watch(name, made=prepared.plan.data.source if profile.data == "temp" else "")


def _have_plugins(plan: Plan, ui: UI) -> None:
    """Install the plugins of a process where they are missing; an image has its own."""
    with ui.working("plugins", "installing from the lock"):
        made = have_environment(plan.plugins)
    if made and plan.plugins is not None:
        ui.step("plugins", f"{plan.plugins.environment} (created)")


def _read_again(prepared: Prepared) -> None:
    """Have the running server begin anew: only a secret in a file of an option has changed."""
    plan, engine = prepared.plan, prepared.engine
    current = settings.current(engine, engine.inspect(plan.name))
    if current is not None:
        settings.take(engine, current, Taken(id=settings.new_order()), deadline=plan.ready_timeout)


def _serves(plan: Plan, current: Container) -> bool:
    """Whether the container runs and its data exists."""
    return current.state is State.RUNNING and not plan.data.begin


def _show_rollback(prepared: Prepared, current: Container | None, ui: UI) -> None:
    """Show the state after a rollback; a server that ran before must be ready again."""
    if current is None:
        ui.step("rollback", "removed everything that this run created")
    elif current.state is State.RUNNING:
        former = Deployment(name=current.name, engine=prepared.engine, container=current)
        report_rollback(former, ui, where="as before")
    else:
        ui.step("rollback", "restored the previous container")


def _image(prepared: Prepared, ui: UI) -> Prepared:
    """Build or pull the server's image if it is missing; a process has none."""
    wanted, images = prepared.plan.image, prepared.engine.images
    if wanted is None or images is None:
        return prepared
    image = have_image(wanted, prepared.image, images, ui)
    return replace(prepared, image=image, image_ready=True)


def have_own_image(prepared: Prepared, ui: UI) -> Image | None:
    """Get our own image, for a run on the data even if the deployment runs another one; a process needs none."""
    wanted, images = own_image(prepared.loaded.profile, prepared.facts), prepared.engine.images
    return have_image(wanted, images.find(wanted.ref), images, ui) if images is not None else None


def _show_container(prepared: Prepared, done: Done, ui: UI) -> None:
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
            # An unchanged server needs no login, which takes a third of a second.
            credentials=(lambda: required_password(prepared)) if own and done != "unchanged" else None,
            index=None,
            deadline=plan.ready_timeout,
            on_stage=lambda stage, seconds: progress(f"{stage} {seconds:.1f}") if ui.terminal else None,
        )


def check_version(plan: Plan, ready: Ready) -> None:
    """Refuse to expose a server with a known vulnerability to other hosts. Raises Refused."""
    version = ready.identity.server_version
    if not plan.loopback and Version(version or "0") < Version(SAFE_VERSION):
        raise Refused(
            f"devpi-server {version or 'of an unknown version'} exposes replication data to every client",
            hint=f"use devpi-server {SAFE_VERSION} or newer, or bind to 127.0.0.1",
        )


def _warn_front(plan: Plan, ready: Ready, ui: UI) -> None:
    """Warn if nginx does not answer clients; an image that is not ours reports nothing."""
    if ready.identity.front:
        check = front(ready.identity.front, in_container=plan.image is not None)
        if check.level is Level.WARNING:
            ui.warn(f"{check.evidence}; fix: {check.cure}")


def _show_outside(prepared: Prepared, ready: Ready, ui: UI) -> None:
    """Prove the address that a proxy gives to clients. It may be set up later: a fault is a warning."""
    if not prepared.loaded.profile.network.outside_url:
        return
    from deployer.devpi.packages import PackageApi
    from deployer.operations.outside import checked

    with PackageApi(ready.api.url) as api:
        for check in checked(prepared, ready.identity.uuid, api):
            if check.level is Level.OK:
                ui.step(check.name, check.evidence)
            else:
                ui.warn(f"{check.evidence}; fix: {check.cure}")


def _uuid(server_dir: ServerDir) -> str:
    """Return the UUID of the data on disk; the server must run on this directory. Raises VerificationError."""
    uuid = server_dir.uuid()
    if uuid is None:
        raise VerificationError(
            f"the server stores no data in {server_dir.mount.source} (mounted at {server_dir.mount.target})",
            hint="set image.data_path to the data directory of that image",
        )
    return uuid


def _mark_used(prepared: Prepared) -> None:
    """Record in the data directory of our own server which deployment uses it, so that no other one deletes it."""
    path, plan = prepared.server_dir.path, prepared.plan
    if path is not None and (plan.image is None or plan.image.own):
        with suppress(OSError, Untrusted):  # only the container can write there; its lock protects the data
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
            overrides=[
                Overridden(key=one.key, value=one.value, source=one.source) for one in prepared.loaded.overrides
            ],
            data_source=plan.data.source,
            data_uuid=uuid,
            public_url=plan.tls.public if plan.tls is not None else "",
        ),
    )
