"""``deployer start``: start a deployment that was stopped, and wait until it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment
    from deployer.readiness import Ready


BACK = timedelta(seconds=60)
"""How long a server may take to answer again after a failure that was undone."""


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    timeout: Annotated[int, Option("--timeout", metavar="SECONDS", min=1, help="How long to wait.")] = 60


def run(options: Options, ui: UI) -> Result:
    """Start what was stopped and wait until it answers.

    Nothing is made or changed: what there is of the deployment is started as it is, as after a boot.
    """
    return wait_for(options, ui, lambda deployment: deployment.engine.start(options.name), doing="starting")


def wait_for(options: Options, ui: UI, act: Callable[[Deployment], None], *, doing: str) -> Result:
    """Do something with the deployment that makes it run, and wait until it truly answers.

    Raises ConflictError when there is none, NotReadyError.
    """
    from deployer.deployment.find import require
    from deployer.deployment.lock import hold

    with hold(options.name, wait=options.wait):
        deployment = require(options.name, engine=options.engine)
        with ui.working("server", f"{doing} {options.name}"):
            act(deployment)
            ready = answering(deployment, timedelta(seconds=options.timeout))
        seconds = max(ready.timings.values(), default=0.0)
        ui.step("ready", f"{deployment.url} in {seconds:.1f} s")
    return Result(data={"url": deployment.url, "timings": dict(ready.timings)})


def back(deployment: Deployment, ui: UI, *, where: str) -> None:
    """Wait until what was put back answers again, and say so, or why it does not: after a failure nothing is left to be
    done, or the user knows what."""
    from deployer.errors import DeployerError

    with ui.working("undone", f"waiting for {deployment.url}"):
        try:
            answering(deployment, BACK).api.close()
        except DeployerError as error:
            ui.warn(f"{deployment.name} was started again {where}, and does not answer: {error.message}")
            return
    ui.step("undone", f"{deployment.name} runs {where}, at {deployment.url}")


def answering(deployment: Deployment, deadline: timedelta) -> Ready:
    """Wait until what runs truly answers. Raises NotReadyError."""
    from deployer.readiness import wait

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
