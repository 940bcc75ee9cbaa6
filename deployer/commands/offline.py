"""``deployer offline``: turn offline mode on or off in the running server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from typer import Argument

from deployer.commands import Located
from deployer.ui.output import UI, Result


class Action(StrEnum):
    ON = "on"
    OFF = "off"
    STATUS = "status"


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    action: Annotated[Action, Argument(help="Turn offline mode on or off, or show it.")] = Action.STATUS


def run(options: Options, ui: UI) -> Result:
    """Turn offline mode on or off, or show it.

    An offline server asks no upstream and serves cached and uploaded files. The mode takes effect at once and survives
    restarts.
    """
    from deployer.deployment.find import require
    from deployer.devpi.api import DevpiApi
    from deployer.errors import VerificationError

    deployment = require(options.name, engine=options.engine)
    with DevpiApi(deployment.url) as api:
        if options.action is not Action.STATUS:
            ui.step("offline", f"turning {options.action}")
            key = deployment.proof_key(otherwise="set server.offline in the profile and run: deployer up")
            api.switch_offline(offline=options.action is Action.ON, proof_key=key)
        offline = api.identity().offline
    if options.action is not Action.STATUS and offline is not (options.action is Action.ON):
        raise VerificationError(f"{deployment.name} did not turn offline mode {options.action}", hint="deployer logs")
    text = "offline: upstreams are not asked" if offline else "online: upstreams are asked"
    return Result(data={"name": deployment.name, "offline": offline}, text=text)
