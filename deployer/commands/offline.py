"""``deployer offline``: stop asking upstreams, while the server runs."""

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
    action: Annotated[Action, Argument(help="Switch, or tell.")] = Action.STATUS


def run(options: Options, ui: UI) -> Result:
    """Serve only what is here, or ask upstreams again. At once and over restarts, until it is switched back."""
    from deployer.deployment.find import require
    from deployer.devpi.api import DevpiApi
    from deployer.errors import VerificationError

    deployment = require(options.name, engine=options.engine)
    with DevpiApi(deployment.url) as api:
        if options.action is not Action.STATUS:
            ui.step("offline", f"switching {options.action}")
            api.switch_offline(offline=options.action is Action.ON, proof_key=_proof_key(deployment))
        offline = api.identity().offline
    if options.action is not Action.STATUS and offline is not (options.action is Action.ON):
        raise VerificationError(
            f"{deployment.name} does not say that it is {options.action}", hint="deployer logs, then try again"
        )
    text = "offline: no upstream is asked" if offline else "online: upstreams are asked"
    return Result(data={"name": deployment.name, "offline": offline}, text=text)


def _proof_key(deployment: Deployment) -> str:
    from deployer.errors import ConflictError

    key = deployment.server_dir.proof_key() if deployment.server_dir else None
    if not key:
        raise ConflictError(
            f"the data directory of {deployment.name} can't be read, or its server is not ours",
            hint="set server.offline in the profile, then deployer up",
        )
    return key
