"""``deployer move``: the same deployment on another data directory or volume, with everything that is in it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from deployer.commands import Exclusive, Overrides, as_deployed
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.errors import DeployerError
    from deployer.operations.prepare import Prepared
    from deployer.spec import ContainerSpec, EngineName, ExecResult, Mount

TIMEOUT = timedelta(days=1)
"""How long a copy may take: what is large is on slow disks."""


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Overrides):
    delete_old: Annotated[
        bool, Option("--delete-old", help="Delete the data in its old place once the server runs on the new one.")
    ] = False


def run(options: Options, ui: UI) -> Result:
    """Move the data to another place, and go on there.

    Name the place with --data. The server is stopped, every file is copied and compared by checksum, and the server
    starts on the copy; if anything fails, it runs again where it was. The old data stays unless told.
    """
    from deployer.commands.down import purge
    from deployer.deployment.find import require
    from deployer.deployment.lock import hold
    from deployer.errors import ConflictError, UsageError
    from deployer.operations.apply import make_data, undo
    from deployer.spec import State

    if not options.data:
        raise UsageError("no new place is named: --data WHERE")
    copied: dict[str, Any] = {"files": 0, "bytes": 0, "sha256": ""}
    with hold(options.name, wait=options.wait):
        deployment = require(options.name, engine=options.engine)
        if deployment.server_dir is None:
            raise ConflictError(f"{options.name} keeps no data that could be moved", hint="deployer status")
        source = deployment.server_dir.mount
        # Every refusal comes here, while nothing has been touched.
        prepared = _prepare(options)
        target = prepared.plan.spec.mounts[0]
        there = target.source == source.source
        with ExitStack() as rollback:
            if there:  # also where an earlier run was cut short after the copy: go on from there
                ui.step("data", f"{source.source} (it is there already)")
            else:
                _have_copier(prepared, ui)
                if deployment.container.state is not State.STOPPED:
                    undo(rollback, _back, deployment, ui)
                    deployment.engine.stop(options.name, timeout=prepared.plan.spec.stop_timeout)
                make_data(prepared.plan.data, rollback)
                copied = _copy(deployment, source, prepared, ui)
            result = _go_on(options, ui, rollback)
        if options.delete_old and not there:
            purge(source, deployment, ui)
        elif not there:
            ui.step("data", f"{source.source} (kept as it was; nothing uses it any more)")
    ui.note(f"put `data: {options.data}` into the profile: from now on it is where the data is")
    return Result(
        data={"from": source.source, "to": target.source, **copied, "url": result.data["url"]},
        warnings=result.warnings,
    )


def _back(deployment: Deployment, ui: UI) -> None:
    from deployer.commands.start import back

    deployment.engine.start(deployment.name)
    back(deployment, ui, where="where it was")


def _prepare(options: Options) -> Prepared:
    from deployer.operations.prepare import prepare

    profile, put_over = as_deployed(options)
    return prepare(profile, options.name, overrides=put_over, replace=False, moving=True)


def _have_copier(prepared: Prepared, ui: UI) -> None:
    """Our own image is what copies, also where another one runs; a process needs none."""
    from deployer.commands.up import have_image
    from deployer.plan import own_image
    from deployer.spec import EngineName

    wanted, engine = own_image(prepared.loaded.profile, prepared.facts), prepared.engine
    if engine.name is not EngineName.PROCESS:
        have_image(wanted, engine.image(wanted.ref), engine, ui)


def _copy(deployment: Deployment, source: Mount, prepared: Prepared, ui: UI) -> dict[str, Any]:
    """Copy and verify where both places are at hand; files, bytes and digest of what was copied."""
    import json

    from deployer.diagnosis import size

    spec = copying(prepared.plan.spec, source, engine=prepared.plan.engine.name, image=prepared.facts.image_ref)
    with ui.working("data", f"copying {source.source} to {prepared.plan.data.source}"):
        done = deployment.engine.once(spec, timeout=TIMEOUT)
    if done.returncode:
        raise _failure(done)
    told = json.loads(done.stdout)
    ui.step("data", f"{prepared.plan.data.source}: {told['files']} files, {size(told['bytes'])}, all compared")
    return {key: told[key] for key in ("files", "bytes", "sha256")}


def _failure(done: ExecResult) -> DeployerError:
    """What the copy said of its end: a line of cause and one of cure, each after our name."""
    from deployer.errors import ConflictError, EngineError, Refused, VerificationError

    said = [line.removeprefix("deployer: ") for line in done.stderr.splitlines() if line.startswith("deployer: ")]
    kind = {5: ConflictError, 9: VerificationError, 11: Refused}.get(done.returncode)
    if kind is None or len(said) != 2:
        return EngineError(
            f"the copy ended with exit code {done.returncode}",
            hint="the server goes on where it was",
            details=tuple(done.stderr.splitlines()[-5:]),
        )
    return kind(said[0], hint=said[1])


def copying(spec: ContainerSpec, source: Mount, *, engine: EngineName, image: str) -> ContainerSpec:
    """What copies ``source`` to where ``spec`` keeps its data, as hardened as what will run there. Pure.

    ``image``: our own, which can copy; the one of the deployment need not be ours.
    """
    from deployer.spec import EngineName

    target = spec.mounts[0]
    common = {"name": f"{spec.name}-copy", "ports": (), "env": (), "restart": "no"}
    if engine is EngineName.PROCESS:
        return replace(spec, command=_command(source.source, target.source), mounts=(), **common)  # type: ignore[arg-type]
    # Where our image keeps data, a new volume gets that image's user; elsewhere docker gives it to root.
    mounts = (replace(source, target="/source"), replace(target, target="/data"))
    command = _command("/source", "/data")
    return replace(spec, image=image, command=command, mounts=mounts, **common)  # type: ignore[arg-type]


def _command(source: str, target: str) -> tuple[str, ...]:
    return ("copy", "--source", source, "--target", target)


def _go_on(options: Options, ui: UI, rollback: ExitStack) -> Result:
    from deployer.commands import up

    same = {name: getattr(options, name) for name in Overrides.__dataclass_fields__}
    return up.bring_up(up.Options(**same, no_pip=True), _prepare(options), ui, rollback)
