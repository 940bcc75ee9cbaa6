"""Start a deployment and wait until it is ready."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from deployer.deployment import settings
from deployer.deployment.find import Deployment, require
from deployer.deployment.lock import hold
from deployer.errors import DeployerError
from deployer.host.gather import data_facts
from deployer.operations.recorded import recorded
from deployer.operations.upgrade.record import read_upgraded
from deployer.plan.data import check_kept
from deployer.protocol import Taken
from deployer.readiness import Ready, wait
from deployer.readiness.probe import ask
from deployer.spec import LABEL_MADE, LABEL_TLS, State

if TYPE_CHECKING:
    from deployer.ui.output import UI

STOP = timedelta(seconds=30)
"""Grace period of a stop before the server is killed."""
ANSWER = timedelta(seconds=2)
"""Time for a server to answer before a restart; one that does not is stopped and started."""
ANEW = timedelta(seconds=30)
"""Time for a server to begin anew; one that does not is stopped and started."""
ROLLBACK = timedelta(seconds=60)
"""Deadline for readiness after a rollback."""


def start(name: str, *, engine: str, lock_wait: float, deadline: timedelta, ui: UI) -> tuple[Deployment, Ready]:
    """Start the deployment unchanged and wait until it is ready; ``lock_wait`` in seconds.

    Raises ConflictError when there is none, NotReadyError.
    """
    return _run(name, _start, engine=engine, lock_wait=lock_wait, deadline=deadline, ui=ui, doing="starting")


def restart(
    name: str, *, engine: str, cold: bool = False, lock_wait: float, deadline: timedelta, ui: UI
) -> tuple[Deployment, Ready]:
    """Have the server begin anew while it serves; ``cold``: stop the deployment, then start it like :func:`start`."""
    return _run(
        name,
        _stop_and_start if cold else _restart,
        engine=engine,
        lock_wait=lock_wait,
        deadline=deadline,
        ui=ui,
        doing="restarting",
    )


def _start(deployment: Deployment) -> None:
    deployment.engine.start(deployment.name)


def _restart(deployment: Deployment) -> None:
    """Have the server begin anew while nginx goes on; where it can't, or does not answer, stop and start it."""
    container = deployment.container
    if container.state is State.RUNNING and LABEL_MADE in container.labels and _answers(deployment.url):
        with suppress(DeployerError):
            settings.take(deployment.engine, container, Taken(id=settings.new_order()), deadline=ANEW)
            return
    _stop_and_start(deployment)


def _stop_and_start(deployment: Deployment) -> None:
    deployment.engine.stop(deployment.name, timeout=STOP)
    deployment.engine.start(deployment.name)


def _answers(url: str) -> bool:
    with suppress(OSError):
        return ask(url, ANSWER.total_seconds(), on_connect=lambda: None).devpi
    return False


def _run(
    name: str,
    act: Callable[[Deployment], None],
    *,
    engine: str,
    lock_wait: float,
    deadline: timedelta,
    ui: UI,
    doing: str,
) -> tuple[Deployment, Ready]:
    with hold(name, wait=lock_wait):
        deployment = require(name, engine=engine)
        check_data(deployment)
        with ui.working("server", f"{doing} {name}"):
            act(deployment)
            ready = answering(deployment, deadline)
        if LABEL_TLS in deployment.container.labels:
            _renew(name, ui)
        seconds = max(ready.timings.values(), default=0.0)
        ui.step("ready", f"{deployment.url} in {seconds:.1f} s")
    return deployment, ready


def _renew(name: str, ui: UI) -> None:
    """Give the server its renewed certificate, if there is one; a failure is a warning, because the server runs."""
    from deployer.operations.recorded import DEFAULT_PROFILE
    from deployer.operations.tls import renew_held

    try:
        if renew_held(DEFAULT_PROFILE, name).changed:
            ui.step("tls", "gave the server its renewed certificate")
    except DeployerError as error:
        ui.warn(f"the certificate was not renewed: {error.message}; {error.hint}")


def check_data(deployment: Deployment) -> None:
    """Refuse to start a server without its data: it would create a new, empty index. Raises ConflictError."""
    place, applied = deployment.server_dir, deployment.applied
    if applied is not None and place is not None and place.path is not None:
        check_kept(recorded(applied, read_upgraded(deployment.name)), data_facts(place.path))


def report_rollback(deployment: Deployment, ui: UI, *, where: str) -> None:
    """Wait until the server that a rollback restarted is ready, and show the result; a failure is a warning.

    ``where``: the end of the sentence "the server runs again ...".
    """
    with ui.working("rollback", f"waiting for {deployment.url}"):
        try:
            answering(deployment, ROLLBACK).api.close()
        except DeployerError as error:
            ui.warn(f"rolled back: {deployment.name} was restarted {where}, but is not ready: {error.message}")
            return
    ui.step("rollback", f"{deployment.name} runs again {where} at {deployment.url}")


def answering(deployment: Deployment, deadline: timedelta) -> Ready:
    """Wait until the server answers and proves its identity. Raises NotReadyError."""
    server_dir = deployment.server_dir
    return wait(
        url=deployment.url,
        engine=deployment.engine,
        name=deployment.name,
        expected_uuid=server_dir.uuid if server_dir else lambda: None,
        proof_key=server_dir.proof_key if server_dir else lambda: None,
        credentials=None,
        index=None,
        deadline=deadline,
        on_stage=lambda stage, seconds: None,
    )
