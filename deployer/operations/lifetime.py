"""The end of a deployment that belongs to a CI job: by ``down``, or by itself when the job is killed.

A keeper waits for that in a session of its own. Its record, 0600 beside that of ``up``, says which keeper is meant: one
that is not on record does nothing.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from deployer.engines import proc
from deployer.errors import DeployerError
from deployer.files import make_private, write_private
from deployer.host.runner import Runner, watcher
from deployer.host.state_dir import state_dir
from deployer.protocol import OWN_PYTHON, parsed
from deployer.spec import Mount
from deployer.typed import built

RECORD = "keeper.json"
PATIENCE = 60.0
"""Seconds to wait for a run that holds the lock, like an ``up`` that is rolled back."""
_NAMES = frozenset(["PATH", "HOME", "LANG", "TMPDIR", "TZ", "VIRTUAL_ENV", "PYTHONPATH", "CNI_PATH", "USER", "LOGNAME"])
_ENGINES = frozenset(
    [
        *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY", "DOCKER_TLS"),
        *("DOCKER_API_VERSION", "CONTAINER_HOST", "CONTAINER_CONNECTION", "CONTAINER_SSHKEY", "CONTAINERS_CONF"),
        *("CONTAINERS_CONF_OVERRIDE", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF", "CONTAINERD_ADDRESS"),
        *("CONTAINERD_NAMESPACE", "CONTAINERD_SNAPSHOTTER", "NERDCTL_TOML", "BUILDKIT_HOST"),
    ]
)
"""Where an engine's client finds its engine. Named one by one: ``DOCKER_AUTH_CONFIG`` holds passwords."""
_PREFIXES = ("DEPLOYER_STATE_DIR", "LC_", "XDG_")


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """``mark``: identifies the process for good. ``made``: the directory that ``up`` makes, to be thrown away."""

    pid: int
    mark: str
    made: str = ""

    @property
    def runs(self) -> bool:
        return bool(self.mark) and proc.mark(self.pid, Runner()) == self.mark


def watch(name: str, *, made: str) -> None:
    """Start a keeper for the deployment ``name``. The caller holds its lock.

    ``made``: the directory that ``up`` is about to make, to be thrown away. Raises EngineUnreachable, ConflictError.
    """
    argv = (*OWN_PYTHON, "-m", "deployer.operations.keeper", name)
    make_private(state_dir(name))
    pid = watcher(argv, env=environment(os.environ), title=f"deployer-{name}-ends-with-this-process")
    keeper = Keeper(pid=pid, mark=proc.mark(pid, Runner()), made=made)
    write_private(state_dir(name) / RECORD, json.dumps(asdict(keeper)) + "\n")


def is_watched(name: str) -> bool:
    keeper = recorded(name)
    return keeper is not None and keeper.runs


def dismiss(name: str) -> None:
    """Forget the keeper of the deployment ``name``, and end it unless it is this process."""
    keeper = recorded(name)
    (state_dir(name) / RECORD).unlink(missing_ok=True)
    if keeper is not None and keeper.pid != os.getpid() and keeper.runs:
        with suppress(OSError):
            os.kill(keeper.pid, signal.SIGKILL)  # it holds nothing; SIGTERM would have it take the deployment down


def recorded(name: str) -> Keeper | None:
    """The keeper on record; None for none, and for a damaged record."""
    try:
        return built(Keeper, parsed((state_dir(name) / RECORD).read_bytes()))
    except (OSError, ValueError):
        return None


def made(name: str) -> Mount | None:
    """The throw-away data of the last ``up``, even if that was killed before it had recorded it."""
    keeper = recorded(name)
    return Mount(kind="bind", source=keeper.made, target=keeper.made) if keeper is not None and keeper.made else None


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """What the keeper gets of the job's variables: where things are, no secrets, and no mark of the job. Pure."""
    return {key: value for key, value in env.items() if key in _NAMES | _ENGINES or key.startswith(_PREFIXES)}


def end(name: str) -> None:
    """Take the deployment down if this process is its keeper."""
    from deployer.deployment.lock import hold
    from deployer.operations.down import down
    from deployer.ui.output import UI

    with hold(name, wait=PATIENCE):
        keeper = recorded(name)
        if keeper is None or keeper.pid != os.getpid() or not keeper.runs:
            return
        with suppress(DeployerError):
            down(name, yes=True, ui=UI(quiet=True))
        dismiss(name)
