"""Where deployer keeps what it knows of the deployments of this user."""

from __future__ import annotations

import os
from pathlib import Path


def state_root() -> Path:
    """The directory of all deployments of this user (``DEPLOYER_STATE_DIR``, else the platform's)."""
    if override := os.environ.get("DEPLOYER_STATE_DIR"):
        return Path(override).absolute()  # a server that outlives us is told of it, and works elsewhere
    from platformdirs import user_state_path

    return user_state_path("deployer", appauthor=False)


def state_dir(name: str) -> Path:
    """The directory of the deployment ``name``; not created here."""
    return state_root() / name
