"""Who owns a file, and whether this user may believe what is in it."""

from __future__ import annotations

import os
import shlex
import stat
from pathlib import Path

from deployer.errors import ConflictError, Refused


def require_own(path: Path, what: str, *, owners: tuple[int, ...] = ()) -> None:
    """Refuse a file or directory that another user owns or may write; one that is absent is fine.

    ``what``: the noun for it. ``owners``: uids beside this user's that may own it. Raises ConflictError, Refused.
    """
    try:
        status = path.stat()
    except OSError:
        return
    if status.st_uid not in (os.geteuid(), *owners):
        raise ConflictError(
            f"the {what} {path} belongs to {user_name(status.st_uid)}, and you are {user_name(os.geteuid())}",
            hint=f"run it as {user_name(status.st_uid)}; with sudo, add -H",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Refused(
            f"other users may write to the {what} {path}",
            hint=f"look for what they put there, then: chmod go-w {shlex.quote(str(path))}",
        )


def user_name(uid: int) -> str:
    """Return the name of a user of this host, or its number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def unreadable(path: Path, error: OSError) -> ConflictError:
    """Return the error for a file of ours that can't be read: neither absent nor damaged."""
    return ConflictError(
        f"{path} can't be read: {error.strerror}", hint=f"sudo chown -R {os.geteuid()} {shlex.quote(str(path.parent))}"
    )
