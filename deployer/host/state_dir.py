"""The directory with the records of this user's deployments, and whether they can be trusted.

The records name processes to signal, programs to start and containers to remove. They are used only if no other user
could have written them: ``sudo`` that keeps HOME, or a shared directory, would let one user command another's deployer.
"""

from __future__ import annotations

import os
from pathlib import Path

from deployer.ownership import require_own


def state_root() -> Path:
    """Return the directory of all deployments of this user (``DEPLOYER_STATE_DIR``, else the platform's).

    Raises ConflictError when it belongs to another user, or is in a directory of another user; Refused when others may
    write to it.
    """
    if override := os.environ.get("DEPLOYER_STATE_DIR"):
        root = Path(override).absolute()  # a server that outlives this process gets it, and runs elsewhere
    else:
        from platformdirs import user_state_path

        root = user_state_path("deployer", appauthor=False)
    require_own(root, "state directory", insist="DEPLOYER_STATE_DIR")
    return root


def state_dir(name: str) -> Path:
    """Return the directory of the deployment ``name``; not created here. Raises as :func:`state_root`."""
    return state_root() / name
