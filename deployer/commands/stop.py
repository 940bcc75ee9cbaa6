"""``deployer stop``: stop the server and keep the deployment."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Exclusive, Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Stop the server; `deployer start` starts it again."""
    from deployer.deployment.find import require
    from deployer.deployment.lock import hold
    from deployer.operations.start import STOP
    from deployer.spec import State

    with hold(options.name, wait=options.wait):
        deployment = require(options.name, engine=options.engine)
        stopped = deployment.container.state is State.STOPPED
        if not stopped:
            with ui.working("server", f"stopping {options.name}"):
                deployment.engine.stop(options.name, timeout=STOP)
    ui.step(
        "server",
        f"{options.name}: nothing to do" if stopped else f"{options.name} stopped (again: deployer start)",
    )
    return Result(data={"stopped": not stopped})
