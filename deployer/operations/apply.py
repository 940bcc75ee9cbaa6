"""The effects of ``up``, one function a step: each is idempotent and is rolled back when a later one fails.

Each effect first registers its undo on an :class:`contextlib.ExitStack`, so that a failure, a signal and ``--keep``
need no code of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from deployer.deployment import settings
from deployer.deployment.settings import new_order
from deployer.engines.base import Engine
from deployer.errors import ConflictError, DeployerError
from deployer.host import untrusted
from deployer.operations.images import fits
from deployer.plan import Plan
from deployer.plan.data import DataPlan
from deployer.plan.drift import strayed
from deployer.plan.in_place import taken_by, takes
from deployer.protocol import PRIVATE, PrivateFile, Taken
from deployer.spec import LABEL_MADE, LABEL_NAME, LABEL_SPEC, LABEL_USER, PREVIOUS, Container, Image, State

BACK = timedelta(seconds=60)
"""Time for a server to begin with its former settings again."""


def undo(rollback: ExitStack, action: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Register ``action`` as a step of the rollback, before the effect that it undoes.

    It may find nothing to undo. Its own failure is suppressed, so that it does not hide the failure that is reported.
    """

    def attempt() -> None:
        with suppress(DeployerError, OSError):
            action(*args, **kwargs)

    rollback.callback(attempt)


class Done(StrEnum):
    """The effect of ``up`` on the container."""

    UNCHANGED = "unchanged"
    CREATED = "created"
    STARTED = "started"
    RECREATED = "recreated"
    CHANGED = "changed"
    """Its server has taken other settings while it served."""


def make_data(name: str, data: DataPlan, engine: Engine, rollback: ExitStack) -> None:
    """Create the directory or the volume for the data of the deployment ``name``, or close a directory to others.

    Raises ConflictError when it can't be given to its owner, EngineError.
    """
    if data.kind == "volume":
        if data.create:
            undo(rollback, engine.volume_remove, data.source)
            engine.volume_create(data.source, {LABEL_NAME: name, LABEL_USER: str(os.geteuid())})
        return
    path = Path(data.source)
    if data.create:
        missing = [p for p in (path, *path.parents) if not p.exists()]
        undo(rollback, _remove_made, path, missing[1:])
        path.mkdir(parents=True, mode=0o700, exist_ok=True)
    if data.create or data.tighten:
        try:
            path.chmod(0o700)
            if path.stat().st_uid != data.uid:
                os.chown(path, data.uid, data.gid)
        except PermissionError:
            raise ConflictError(
                f"the owner of {path} can't be changed to uid {data.uid}",
                hint=f"sudo chown {data.uid}:{data.gid} {path}",
            ) from None
    if data.mark:
        _allow_new_index(path)


def _allow_new_index(path: Path) -> None:
    """Leave the mark without which the server does not begin an index in an empty directory. Raises ConflictError."""
    try:
        untrusted.make_directory(path, PRIVATE)
        untrusted.replace(path, PrivateFile.FIRST_BOOT.relative, b"")
    except (OSError, untrusted.Untrusted) as error:
        reason = error.strerror if isinstance(error, OSError) else error.why
        raise ConflictError(
            f"{path} can't be prepared: {reason}", hint="choose another directory with --data"
        ) from None


def _remove_made(path: Path, parents: list[Path]) -> None:
    """Remove a directory that this run created, and its empty parents among ``parents``."""
    shutil.rmtree(path, ignore_errors=True)
    for parent in parents:
        try:
            parent.rmdir()
        except OSError:
            return


def settle(name: str, engine: Engine, current: Container | None, previous: Container | None) -> Container | None:
    """Restore the container that an interrupted run set aside and did not replace; return the current container.

    ``previous``: the container that was set aside, None if a container has the name of the deployment.
    """
    if previous is not None and previous.ours:
        engine.rename(name + PREVIOUS, name)
        return engine.inspect(name)
    return current


def same_spec(plan: Plan, container: Container | None) -> bool:
    """Whether ``container`` was made from this plan."""
    return container is not None and container.labels.get(LABEL_SPEC) == plan.spec.sha256()


def is_current(plan: Plan, container: Container | None, image: Image | None) -> bool:
    """Whether ``container`` was made from this plan and from ``image``, the current image of that name, and is still
    as it was made.

    An image that was built or loaded since replaces the container.
    """
    if container is None or not same_spec(plan, container) or strayed(plan.spec, container):
        return False
    return _is_of(plan, container, image)


def _is_of(plan: Plan, container: Container, image: Image | None) -> bool:
    """Whether ``container`` was made from the current image."""
    if plan.image is None or image is None or not fits(plan.image, image) or not container.image_id:
        return True  # no newer image, or the engine does not report the image of a container
    return container.image_id == image.id


def ensure_container(
    plan: Plan, engine: Engine, current: Container | None, image: Image | None, rollback: ExitStack
) -> Done:
    """Run the planned container. A container that differs is set aside, and the rollback restores it."""
    name = plan.name
    unusable = current is not None and current.state in (State.CREATED, State.LOST)
    if current is not None and is_current(plan, current, image) and not unusable:
        if current.state is State.RUNNING:
            return Done.UNCHANGED
        if current.state is not State.PAUSED:
            undo(rollback, engine.stop, name, timeout=plan.spec.stop_timeout)
        engine.start(name)
        return Done.STARTED
    if current is not None and changes_in_place(plan, current, image) and _change(plan, engine, current, rollback):
        return Done.CHANGED
    spec = plan.spec if plan.image is not None and not plan.image.own else replace(plan.spec, made=new_order())
    if current is None:
        undo(rollback, engine.remove, name)
        engine.run(spec)
        return Done.CREATED
    if unusable:
        # CREATED: an engine leaves it when a start fails, nothing ever ran in it. LOST: it can't run any more.
        engine.remove(name)
        undo(rollback, engine.remove, name)
        engine.run(spec)
        return Done.CREATED if current.state is State.CREATED else Done.RECREATED
    set_aside(plan, engine, current, rollback)
    undo(rollback, engine.remove, name)
    engine.run(spec)
    return Done.RECREATED


def changes_in_place(plan: Plan, current: Container, image: Image | None) -> bool:
    """Whether the server of the running container takes the plan's settings, and nothing else differs."""
    return not plan.data.begin and takes(plan.spec, current) and _is_of(plan, current, image)


def _change(plan: Plan, engine: Engine, current: Container, rollback: ExitStack) -> bool:
    """Have the server take the plan's settings; False when it takes none. Raises NotReadyError, EngineError."""
    made = current.labels[LABEL_MADE]
    with ExitStack() as refused:
        undo(refused, engine.start, plan.name)  # where its restart policy did not
        undo(refused, _change_back, engine, current)
        order = Taken(id=new_order(), made=made, spec=plan.spec.sha256(), words=plan.spec.command)
        try:
            settings.take(engine, current, order, deadline=plan.ready_timeout)
        except ConflictError:
            refused.pop_all()
            return False
        finally:
            rollback.push(refused.pop_all())
    return True


def _change_back(engine: Engine, former: Container) -> None:
    """Have the server take its former settings, unless it has them."""
    found = settings.current(engine, engine.inspect(former.name))
    if found is not None and found.state is State.RUNNING and found.labels.get(LABEL_SPEC) != former.labels[LABEL_SPEC]:
        settings.take(engine, former, taken_by(former, order=new_order()), deadline=BACK)


def set_aside(plan: Plan, engine: Engine, current: Container, rollback: ExitStack) -> None:
    """Stop the container with the planned name, and give it another one. The rollback restores it."""
    name = plan.name
    leftover = engine.inspect(name + PREVIOUS)
    if leftover is not None and not leftover.ours:
        raise ConflictError(
            f"the container {name + PREVIOUS!r} is not deployer's, and deployer needs its name",
            hint=f"{engine.name} rename {name + PREVIOUS} OTHER",
        )
    if leftover is not None:
        engine.remove(name + PREVIOUS)
    if current.state in (State.RUNNING, State.RESTARTING, State.PAUSED):
        undo(rollback, engine.start, name)
        engine.hold(name)
        engine.stop(name, timeout=plan.spec.stop_timeout)
    undo(rollback, engine.rename, name + PREVIOUS, name)
    engine.rename(name, name + PREVIOUS)
