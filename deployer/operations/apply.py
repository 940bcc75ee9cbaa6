"""The effects of ``up``, one function a step, each safe to run again and each undone when a later one fails.

Undoing is registered on an :class:`contextlib.ExitStack` the moment something was made, so that a failure, a
signal and ``--keep`` need no code of their own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import StrEnum
from pathlib import Path

from deployer.engines.base import Engine
from deployer.errors import ConflictError, DeployerError
from deployer.operations.images import fits
from deployer.plan import Plan
from deployer.plan.data import DataPlan
from deployer.spec import LABEL_NAME, LABEL_SPEC, PREVIOUS, Container, Image, State


def undo(rollback: ExitStack, action: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Register ``action`` to be run when anything fails later. It is registered before what it undoes is done, so
    it may find nothing to undo; and its own failure must not hide the one that is being told."""

    def attempt() -> None:
        with suppress(DeployerError, OSError):
            action(*args, **kwargs)

    rollback.callback(attempt)


class Done(StrEnum):
    """What became of the container."""

    UNCHANGED = "unchanged"
    CREATED = "created"
    STARTED = "started"
    RECREATED = "recreated"


def make_data(name: str, data: DataPlan, engine: Engine, rollback: ExitStack) -> None:
    """Create the directory or the volume for the data of the deployment ``name``, or close a directory to others.

    Raises ConflictError when it can't be given to its owner, EngineError.
    """
    if data.kind == "volume":
        if data.create:
            undo(rollback, engine.volume_remove, data.source)
            engine.volume_create(data.source, {LABEL_NAME: name})
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
                f"{path} can't be given to uid {data.uid}", hint=f"sudo chown {data.uid}:{data.gid} {path}"
            ) from None


def _remove_made(path: Path, parents: list[Path]) -> None:
    """Undo of a directory that this run created: nothing in it is older than this run."""
    shutil.rmtree(path, ignore_errors=True)
    for parent in parents:
        try:
            parent.rmdir()
        except OSError:
            return


def settle(name: str, engine: Engine, current: Container | None, previous: Container | None) -> Container | None:
    """Bring back what an interrupted run had set aside and not replaced; the container that stands now.

    ``previous`` is what was set aside, where nothing carries the name any more.
    """
    if previous is not None and previous.ours:
        engine.rename(name + PREVIOUS, name)
        return engine.inspect(name)
    return current


def same_spec(plan: Plan, container: Container | None) -> bool:
    """Whether ``container`` was made from exactly this plan."""
    return container is not None and container.labels.get(LABEL_SPEC) == plan.spec.sha256()


def is_current(plan: Plan, container: Container | None, image: Image | None) -> bool:
    """Whether ``container`` was made from exactly this plan, and from the ``image`` that its image now is: one that was
    built or loaded since is meant to be used."""
    if container is None or not same_spec(plan, container):
        return False
    if plan.image is None or image is None or not fits(plan.image, image) or not container.image_id:
        return True  # there is no other one, or the engine does not tell
    return container.image_id == image.id


def ensure_container(
    plan: Plan, engine: Engine, current: Container | None, image: Image | None, rollback: ExitStack
) -> Done:
    """Have the planned container run. One that differs is set aside, and comes back when anything fails later."""
    name = plan.name
    useless = current is not None and current.state in (State.CREATED, State.LOST)
    if current is not None and is_current(plan, current, image) and not useless:
        if current.state is State.RUNNING:
            return Done.UNCHANGED
        if current.state is not State.PAUSED:
            undo(rollback, engine.stop, name, timeout=plan.spec.stop_timeout)
        engine.start(name)
        return Done.STARTED
    if current is None:
        undo(rollback, engine.remove, name)
        engine.run(plan.spec)
        return Done.CREATED
    if useless:
        # Nothing ever ran in it (an engine leaves such a one behind when a start fails), or nothing can any more.
        engine.remove(name)
        undo(rollback, engine.remove, name)
        engine.run(plan.spec)
        return Done.CREATED if current.state is State.CREATED else Done.RECREATED
    _set_aside(plan, engine, current, rollback)
    undo(rollback, engine.remove, name)
    engine.run(plan.spec)
    return Done.RECREATED


def _set_aside(plan: Plan, engine: Engine, current: Container, rollback: ExitStack) -> None:
    name = plan.name
    leftover = engine.inspect(name + PREVIOUS)
    if leftover is not None and not leftover.ours:
        raise ConflictError(
            f"a container named {name + PREVIOUS!r} is not deployer's, and has the name that what runs needs now",
            hint=f"rename it: {engine.name} rename {name + PREVIOUS} OTHER",
        )
    if leftover is not None:
        engine.remove(name + PREVIOUS)
    if current.state in (State.RUNNING, State.RESTARTING, State.PAUSED):
        undo(rollback, engine.start, name)
        engine.stop(name, timeout=plan.spec.stop_timeout)
    undo(rollback, engine.rename, name + PREVIOUS, name)
    engine.rename(name, name + PREVIOUS)
