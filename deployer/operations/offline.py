"""Turn offline mode on or off in the running server."""

from __future__ import annotations

from deployer.deployment.find import require
from deployer.devpi.api import DevpiApi
from deployer.errors import VerificationError
from deployer.ui.output import UI, Result


def switched(name: str, engine: str, *, offline: bool, ui: UI) -> Result:
    """Switch the deployment ``name``. Raises VerificationError when the server does not say so after."""
    deployment = require(name, engine=engine)
    word = "on" if offline else "off"
    with DevpiApi(deployment.url) as api:
        ui.step("offline", f"turning {word}")
        key = deployment.proof_key(otherwise="set server.offline in the profile and run: deployer up")
        api.switch_offline(offline=offline, proof_key=key)
        if api.identity().offline is not offline:
            raise VerificationError(f"{deployment.name} did not turn offline mode {word}", hint="deployer logs")
    return _result(deployment.name, offline)


def shown(name: str, engine: str) -> Result:
    """Whether the deployment ``name`` is offline."""
    deployment = require(name, engine=engine)
    with DevpiApi(deployment.url) as api:
        return _result(deployment.name, api.identity().offline)


def _result(name: str, offline: bool | None) -> Result:
    text = "offline: upstreams are not asked" if offline else "online: upstreams are asked"
    return Result(data={"name": name, "offline": offline}, text=text)
