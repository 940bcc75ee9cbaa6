"""Work that may begin before a command line is read in full."""

from __future__ import annotations

from contextlib import suppress

from deployer.deployment.record import read_applied
from deployer.engines.process import ProcessEngine
from deployer.errors import DeployerError
from deployer.host.state_dir import state_root
from deployer.spec import EngineName


def load_server(name: str) -> None:
    """Let the server of a stopped deployment of the process engine load, as it was deployed last.

    The plan decides whether it serves. A failure is left to the command itself, which meets it again.
    """
    with suppress(DeployerError, OSError):
        applied = read_applied(name)
        if applied is not None and applied.engine == EngineName.PROCESS:
            ProcessEngine(state_root()).stand_by(name, applied.data_source)
