"""The systemd units that start a deployment at boot, and take its backups."""

from __future__ import annotations

import os
from datetime import timedelta

from deployer.protocol import OWN_PYTHON
from deployer.render import backup_units, tls_units, unit, warm_units
from deployer.spec import EngineName

PATIENCE = timedelta(minutes=3)
"""Limit of a start at boot, when disks and network are busy."""
KEPT = (
    *("HOME", "PATH", "DEPLOYER_STATE_DIR", "DEPLOYER_CONFIG_DIR", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"),
    *("DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS", "CONTAINERD_NAMESPACE"),
)
"""Variables that locate the deployment and its engine; systemd does not pass them on."""


def unit_text(name: str, engine: EngineName, *, scope: str) -> str:
    """Return the unit that starts the deployment ``name`` on ``engine`` with this installation."""
    words = ("--name", name, "--engine", str(engine), "--wait", "60", "--quiet")
    timeout = str(round(PATIENCE.total_seconds()) - 60)
    start, stop = _words("start", *words, "--timeout", timeout), _words("stop", *words)
    return unit(name, engine, scope=scope, start=start, stop=stop, start_timeout=PATIENCE)


def warm_texts(name: str, engine: EngineName) -> tuple[str, str]:
    """Return the unit that fetches what the watched files of the deployment ``name`` need, and its timer."""
    return warm_units(name, warm=_words("warm", "--watched", "--name", name, "--engine", str(engine), "--quiet"))


def tls_texts(name: str, engine: EngineName) -> tuple[str, str]:
    """Return the unit that gives the deployment ``name`` its renewed certificate, and its timer."""
    return tls_units(
        name, renew=_words("tls", "renew", "--name", name, "--engine", str(engine), "--wait", "60", "--quiet")
    )


def backup_texts(name: str, engine: EngineName, *, schedule: str) -> tuple[str, str]:
    """Return the units that take backups of the deployment ``name``: the service, and its timer."""
    words = _words("backup", "create", "--prune", "--name", name, "--engine", str(engine), "--quiet")
    return backup_units(name, create=words, schedule=schedule)


def _words(*words: str) -> tuple[str, ...]:
    """Return arguments of env(1): the current variables, then this installation's command."""
    kept = tuple(f"{key}={os.environ[key]}" for key in KEPT if os.environ.get(key))
    return (*kept, *OWN_PYTHON, "-m", "deployer.cli", *words)
