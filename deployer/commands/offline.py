"""``deployer offline``: turn offline mode on or off in the running server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from typer import Argument

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment


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
            api.switch_offline(offline=options.action is Action.ON, proof_key=_proof_key(deployment))
        offline = api.identity().offline
    if options.action is not Action.STATUS and offline is not (options.action is Action.ON):
        raise VerificationError(f"{deployment.name} did not turn offline mode {options.action}", hint="deployer logs")
    text = "offline: upstreams are not asked" if offline else "online: upstreams are asked"
    return Result(data={"name": deployment.name, "offline": offline}, text=text)


def _proof_key(deployment: Deployment) -> str:
    from deployer.errors import ConflictError

    key = deployment.server_dir.proof_key() if deployment.server_dir else None
    if not key:
        raise ConflictError(
            f"no access to the data directory of {deployment.name}, or its image is not deployer's own",
            hint="set server.offline in the profile and run: deployer up",
        )
    return key
