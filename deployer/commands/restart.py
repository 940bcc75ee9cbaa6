"""``deployer restart``: stop, start, and wait until it answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from deployer.commands import start
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment


@dataclass(frozen=True, kw_only=True)
class Options(start.Options):
    pass


def run(options: Options, ui: UI) -> Result:
    """Restart the server and wait until it truly answers."""

    def act(deployment: Deployment) -> None:
        deployment.engine.stop(options.name, timeout=timedelta(seconds=30))
        deployment.engine.start(options.name)

    return start.wait_for(options, ui, act, doing="restarting")
