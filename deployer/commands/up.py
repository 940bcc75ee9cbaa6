"""``deployer up``: from nothing, or from whatever is there, to an index that answers and clients that use it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Exclusive, Overrides, overrides, told_before
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.clients.pip import ClientChange, PipSettings
    from deployer.deployment.server_dir import ServerDir
    from deployer.devpi.change import Change
    from deployer.engines.base import Engine
    from deployer.operations.apply import Done
    from deployer.operations.prepare import Prepared
    from deployer.plan import ImagePlan, Plan
    from deployer.readiness import Ready
    from deployer.spec import Container, Image


SAFE_VERSION = "6.20.2"
"""The first devpi-server that keeps its replication data from strangers (its changelog, 6.20.2)."""


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    no_pip: Annotated[bool, Option("--no-pip", help="Leave every client file alone.")] = False
    keep: Annotated[bool, Option("--keep", help="After a failure, keep what was made, for a look.")] = False
    replace: Annotated[bool, Option("--replace", help="Switch a deployment that runs under another profile.")] = False
    prune: Annotated[
        bool, Option("--prune", help="Remove users and empty indexes that the profile does not name; needs --yes.")
    ] = False
    yes: Annotated[bool, Option("--yes", "-y", help="Never ask.")] = False


def run(options: Options, ui: UI) -> Result:
    """Start the server, make its indexes, and point pip at it.

    It returns when the server truly answers. Running it again changes nothing; a changed profile is shown as a
    difference and applied; a failure leaves what was there before.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import Refused
    from deployer.operations.prepare import prepare

    if options.prune and not options.yes:
        raise Refused("--prune would remove what the profile does not name", hint="insist with --yes")
    with hold(options.name, wait=options.wait):
        prepared = prepare(
            options.profile, options.name, overrides=overrides(options), replace=options.replace or options.yes
        )
        with ExitStack() as rollback:
            try:
                return bring_up(options, prepared, ui, rollback)
            except BaseException as error:
                if options.keep:
                    rollback.pop_all()
                    _keep(prepared, error)
                raise


def _keep(prepared: Prepared, error: BaseException) -> None:
    """Leave what failed for a look: its files, its state and its log, but not a server that starts for ever."""
    from deployer.errors import ConflictError, NotReadyError, Refused, VerificationError

    plan, engine = prepared.plan, prepared.engine
    if (
        isinstance(error, NotReadyError | ConflictError | VerificationError | Refused)
        and engine.inspect(plan.name) is not None
    ):
        engine.stop(plan.name, timeout=plan.spec.stop_timeout)


def bring_up(options: Options, prepared: Prepared, ui: UI, rollback: ExitStack) -> Result:
    """Have it run as planned, and undo nothing any more once it answers; the undoing until then is on ``rollback``."""
    from deployer.deployment.credentials import hand_over
    from deployer.deployment.secret_refs import authorizations
    from deployer.operations.apply import remove_former, settle
    from deployer.operations.seed import seed
    from deployer.spec import PREVIOUS

    plan, engine = prepared.plan, prepared.engine
    _say_engine(prepared, ui)
    for text in told_before(options, prepared.loaded):
        ui.warn(text)
    if not options.no_pip:
        _check_clients(plan)
    headers = authorizations(plan.indexes, env=os.environ, home=Path.home())
    current = settle(plan.name, engine, prepared.current, prepared.previous)
    prepared = _decided(prepared, ui)
    plan = prepared.plan
    done = _container(prepared, current, ui, rollback)
    started = time.monotonic()
    with closing_api(_ready(prepared, done, ui)) as ready:
        _check_version(plan, ready)
        if plan.image is None or plan.image.own:
            # Before the first mirror is asked for anything: an upstream may say 404 to who comes without.
            hand_over(prepared.server_dir, headers)
        changes = seed(prepared, ready, removing=options.prune)
        _say_front(plan, ready, ui)
    timings = {**ready.timings, "index": time.monotonic() - started}
    ui.step("ready", f"{plan.url} in {timings['index']:.1f} s   ({_stages(timings)})")
    say_changes(changes, ui)
    # From here on the server is as the profile wants it: a client file that fails is no reason to take it away.
    rollback.pop_all()
    if done == "recreated":  # what was set aside; anything else of that name is not ours to remove
        engine.remove(plan.name + PREVIOUS)
        if current is not None and current.image_id:
            remove_former(engine, current.image_id)
    _remember(prepared)
    client_changes = [] if options.no_pip else _clients(plan, ui)
    ui.step(
        "try",
        "pip download --no-deps flask"
        if client_changes
        else f"deployer exec --name {plan.name} -- pip download --no-deps flask",
    )
    return _result(prepared, done, timings, changes, client_changes)


def say_changes(changes: Sequence[Change], ui: UI) -> None:
    """Tell what became of users and indexes, and what the profile does not name."""
    from deployer.devpi.change import Kind

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


def _check_clients(plan: Plan) -> None:
    """Find out that a client file can't be written before anything was started for it."""
    from deployer.clients import pip

    if "pip" in plan.clients.configure:
        pip.preview(pip_settings(plan), scope=plan.clients.scope, env=os.environ)


def pip_settings(plan: Plan) -> PipSettings:
    from deployer.clients.pip import PipSettings

    return PipSettings(index_url=plan.simple_url, timeout=plan.clients.timeout)


def _decided(prepared: Prepared, ui: UI) -> Prepared:
    """Have the network measured where that is still open, with the image that the server runs from."""
    from deployer.operations.prepare import measured

    if not prepared.plan.network.open:
        return prepared
    prepared = _image(prepared, ui)
    with ui.working("network", "asking the upstream from a bridged container"):
        decided = measured(prepared)
    if warning := decided.plan.network.warning:
        ui.warn(warning)
    return decided


def _container(prepared: Prepared, current: Container | None, ui: UI, rollback: ExitStack) -> Done:
    from deployer.operations.apply import Done, ensure_container, is_current, make_data
    from deployer.spec import State

    plan, engine = prepared.plan, prepared.engine
    if current is not None and is_current(plan, current, prepared.image) and current.state is State.RUNNING:
        _say_container(prepared, Done.UNCHANGED, ui)
        return Done.UNCHANGED
    if plan.image is not None and not prepared.image_ready:
        prepared = _image(prepared, ui)
    if current is not None and not is_current(plan, current, prepared.image):
        for line in differences(prepared):
            ui.note(line)
    # Registered first, it is said last: when everything below has been undone.
    rollback.callback(_undone, prepared, current, ui)
    make_data(plan.data, rollback)
    with ui.working("server", "starting"):
        done = ensure_container(plan, engine, current, prepared.image, rollback)
    _say_container(prepared, done, ui)
    return done


def _undone(prepared: Prepared, current: Container | None, ui: UI) -> None:
    """Say what there is after a failure; what served clients before has to serve them again."""
    from deployer.commands.start import back
    from deployer.deployment.find import Deployment
    from deployer.spec import State

    if current is None:
        ui.step("undone", "what was made is removed")
    elif current.state is State.RUNNING:
        former = Deployment(name=current.name, engine=prepared.engine, container=current)
        back(former, ui, where="as before")
    else:
        ui.step("undone", "what was there is back")


def _image(prepared: Prepared, ui: UI) -> Prepared:
    """The same, with the image that the server is to run from."""
    from dataclasses import replace

    assert prepared.plan.image is not None  # noqa: S101 - narrowed by the caller
    image = have_image(prepared.plan.image, prepared.image, prepared.engine, ui)
    return replace(prepared, image=image, image_ready=True)


def have_image(image_plan: ImagePlan, there: Image | None, engine: Engine, ui: UI) -> Image:
    """Have the image that is wanted, and tell how; ``there``: what has its name now.

    Raises ImageUnavailable, Refused.
    """
    from deployer.host.background import meanwhile
    from deployer.operations.apply import build_own, ensure_image

    meanwhile(lambda: import_module("deployer.render"))  # needed next, and loaded while the engine answers
    started = time.monotonic()
    with ui.working("image", f"{image_plan.ref}") as progress:
        image, made = ensure_image(
            image_plan,
            engine,
            there,
            build=lambda wanted, on_line: build_own(wanted, engine, there, env=dict(os.environ), on_line=on_line),
            on_line=progress,
        )
    how = f"built in {time.monotonic() - started:.0f} s" if made and image_plan.own else "pulled" if made else "present"
    ui.step("image", f"{image_plan.ref} ({how})" + ("" if image_plan.own else f" {image.id[:19]}"))
    return image


def _say_container(prepared: Prepared, done: Done, ui: UI) -> None:
    plan, data = prepared.plan, prepared.facts.data
    where = f"volume {plan.data.source}" if data is None else str(data.path)
    ui.step("data", where + (" (created)" if plan.data.create and done != "unchanged" else ""))
    reach = plan.network.mode if plan.engine.name != "process" else "this host, no container"
    ui.step("network", f"{reach} ({plan.network.reason})")
    ui.step("server", f"{plan.name} {done}")


def differences(prepared: Prepared) -> tuple[str, ...]:
    """What the profile changes in the running deployment, key by key, as far as its last profile is known."""
    from deployer.deployment.record import read_applied
    from deployer.operations.apply import same_spec
    from deployer.profile.load.layers import flatten

    applied = read_applied(prepared.plan.name)
    if applied is None or not applied.profile:
        return ("what runs was made from other settings (the record of them is gone)",)
    before, after = flatten(applied.profile), flatten(prepared.loaded.profile.model_dump(mode="json"))
    keys = sorted(key for key in before | after if before.get(key) != after.get(key))
    lines = tuple(f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}" for key in keys)
    if not lines and same_spec(prepared.plan, prepared.current):
        return ("its image was made anew since it was started",)
    return lines or ("the same profile, but another version of deployer, of the server or of its image",)


def _shown(value: object) -> object:
    return "nothing" if value in (None, "", [], {}) else value


def _ready(prepared: Prepared, done: Done, ui: UI) -> Ready:
    from deployer.operations.seed import required_password
    from deployer.readiness import wait

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


def _check_version(plan: Plan, ready: Ready) -> None:
    """Refuse to show others a server with a known hole. Raises Refused."""
    from packaging.version import Version

    from deployer.errors import Refused

    version = ready.identity.server_version
    if not plan.loopback and Version(version or "0") < Version(SAFE_VERSION):
        raise Refused(
            f"devpi-server {version or 'of an unknown version'} gives replication data to whoever can reach it",
            hint=f"use devpi-server {SAFE_VERSION} or newer, or publish it on 127.0.0.1 only",
        )


def _say_front(plan: Plan, ready: Ready, ui: UI) -> None:
    """Tell what is lost where nginx does not answer clients; of another image nothing is known."""
    from deployer.diagnosis import Level
    from deployer.diagnosis.service import front

    if ready.identity.front:
        check = front(ready.identity.front, in_container=plan.image is not None)
        if check.level is Level.WARNING:
            ui.warn(f"{check.evidence}; cure: {check.cure}")


def _uuid(server_dir: ServerDir) -> str:
    """The identity of the data on disk: what answers must be running on exactly this directory."""
    from deployer.errors import VerificationError

    uuid = server_dir.uuid()
    if uuid is None:
        raise VerificationError(
            f"the server answers, but keeps nothing in {server_dir.mount.source}, its {server_dir.mount.target}",
            hint="set image.data_path to the directory where that image keeps its data",
        )
    return uuid


def _clients(plan: Plan, ui: UI) -> list[ClientChange]:
    from deployer.clients import pip

    made = []
    for client in plan.clients.configure:
        change = pip.configure(pip_settings(plan), scope=plan.clients.scope, env=os.environ)
        ui.step(
            client,
            f"{change.path}: "
            + ("index-url, timeout (undo: deployer configure-pip --undo)" if change.changed else "unchanged"),
        )
        for warning in (*change.masks, *change.warnings):
            ui.warn(warning)
        made.append(change)
    return made


def _remember(prepared: Prepared) -> None:
    from deployer.deployment.record import Applied, write_applied

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
        ),
    )


def _result(
    prepared: Prepared,
    done: Done,
    timings: Mapping[str, float],
    changes: tuple[Change, ...],
    client_changes: list[ClientChange],
) -> Result:
    plan = prepared.plan
    return Result(
        data={
            "url": plan.url,
            "simple_url": plan.simple_url,
            "engine": plan.engine.name,
            "network": plan.network.mode,
            "server": done,
            "changes": [
                *([] if done == "unchanged" else [f"server {done}"]),
                *(change.text for change in changes if change.due),
                *(f"{change.path} written" for change in client_changes if change.changed),
            ],
            "timings": {stage: round(seconds, 3) for stage, seconds in timings.items()},
            "client_files": [str(change.path) for change in client_changes],
        },
        text=plan.simple_url,
    )
