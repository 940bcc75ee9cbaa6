"""Have a running server take settings, and begin anew with them: nginx goes on, and nobody is refused."""

from __future__ import annotations

import secrets
import time
from datetime import timedelta

from deployer.deployment.server_dir import ServerDir
from deployer.engines.base import Engine
from deployer.errors import ConflictError, DeployerError, NotReadyError, of_refusal
from deployer.plan.in_place import in_force
from deployer.protocol import IMAGE_PYTHON, OWN_PYTHON, PrivateFile, Refusal, Taken
from deployer.spec import LABEL_MADE, LABEL_SPEC, Container, State, features

_LOOK = 0.05
"""Seconds between two looks whether the server has begun."""
_LOOKS = 20
"""Looks between two questions to the engine."""


def current(engine: Engine, container: Container | None) -> Container | None:
    """The container as it is by the settings that its server has taken; not as planned where they can't be read."""
    if container is None or LABEL_MADE not in container.labels:
        return container
    try:
        return in_force(container, _taken(ServerDir.of(engine, container)))
    except DeployerError:
        return in_force(container, None) if container.state is State.RUNNING else _unknown(container)


def _unknown(container: Container) -> Container:
    from dataclasses import replace

    return replace(container, labels={name: value for name, value in container.labels.items() if name != LABEL_SPEC})


def new_order() -> str:
    """The id of an order."""
    return secrets.token_hex(8)


def take(engine: Engine, container: Container, taken: Taken, *, deadline: timedelta) -> None:
    """Have the server of a running container begin anew with the settings of an order, and wait until it serves.

    Raises ConflictError when it takes none, NotReadyError when it does not begin with them, EngineError.
    """
    place = ServerDir.of(engine, container)
    if place is None:
        raise ConflictError(f"{container.name} has no data directory", hint="deployer up")
    inside = features(engine.name).containers
    python = IMAGE_PYTHON if inside else OWN_PYTHON
    directory = place.mount.target if inside else place.mount.source
    verb = (*python, "-m", "deployer.server", "take", "--serverdir", directory)
    done = engine.exec(container.name, verb, stdin=taken.text.encode())
    if done.returncode:
        refusal = Refusal.parse(done.stderr.splitlines())
        raise (
            of_refusal(refusal)
            if refusal
            else ConflictError(
                f"{container.name} takes no settings: {done.stderr.strip()[-300:]}", hint="deployer restart"
            )
        )
    _wait(engine, container, place, taken, deadline.total_seconds())


def _wait(engine: Engine, container: Container, place: ServerDir, taken: Taken, seconds: float) -> None:
    until, looks = time.monotonic() + seconds, 0
    while True:
        # In this order: the second file becomes the first one.
        ordered = place.read(PrivateFile.NEXT_SETTINGS.relative)
        found = _taken(place)
        if found is not None and found.id == taken.id:
            return
        looks += 1
        ended = looks % _LOOKS == 0 and not _runs(engine, container.name)
        if ordered is None or ended or time.monotonic() > until:
            raise NotReadyError(f"{container.name} does not begin with its new settings", hint="deployer logs")
        time.sleep(_LOOK)


def _runs(engine: Engine, name: str) -> bool:
    found = engine.inspect(name)
    return found is not None and found.state is State.RUNNING


def _taken(place: ServerDir | None) -> Taken | None:
    return Taken.parse(place.read(PrivateFile.SETTINGS.relative)) if place is not None else None
