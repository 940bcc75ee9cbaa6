"""Who owns a file, and whether this user may believe what is in it."""

from __future__ import annotations

import os
import shlex
import stat
from functools import cache
from pathlib import Path

from deployer.errors import ConflictError, Refused


def require_own(path: Path, what: str, *, owners: tuple[int, ...] = (), insist: str = "") -> None:
    """Refuse a file or directory that another user owns, may write or may replace; one that is absent can't be.

    ``what``: the noun for it. ``owners``: uids beside this user's that may own it. ``insist``: the end of a hint, a
    variable that names another place. Raises ConflictError, Refused.
    """
    status = _status(path)
    if status is not None and status.st_uid not in (os.geteuid(), *owners):
        raise _of_another(f"the {what} {path} belongs to", status.st_uid, insist)
    if status is not None and _others_write(status):
        raise Refused(
            f"other users may write to the {what} {path}",
            hint=f"look for what they put there, then: chmod go-w {shlex.quote(str(path))}",
        )
    for above in dict.fromkeys((*path.parents, *path.resolve().parents)):
        status = _status(above)
        if status is not None and status.st_uid not in (os.geteuid(), 0, *_unmapped()):
            raise _of_another(f"the {what} {path} is in {above}, which belongs to", status.st_uid, insist)
        if status is not None and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise Refused(
                f"other users may replace the {what} {path}: all may write to {above}",
                hint=f"chmod o-w {shlex.quote(str(above))}",
            )


def _of_another(start: str, uid: int, insist: str) -> ConflictError:
    name = user_name(uid)
    hint = f"run it as {name}; with sudo, add -H" + (f"; or set {insist}" if insist else "")
    return ConflictError(f"{start} {name}, and you are {user_name(os.geteuid())}", hint=hint)


@cache
def _unmapped() -> tuple[int, ...]:
    """Return the uid of files whose owner has none in this user namespace (user_namespaces(7)): nobody can be it."""
    try:
        whole = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
        return () if whole else (int(Path("/proc/sys/kernel/overflowuid").read_text()),)
    except (OSError, ValueError):
        return ()


def is_there(path: Path) -> bool:
    """Whether ``path`` exists and this user may see it."""
    return _status(path) is not None


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _others_write(status: os.stat_result) -> bool:
    """Whether others than the owner may write; the members of a group of the owner's own are not others."""
    group = status.st_mode & stat.S_IWGRP and not _is_private_group(status.st_gid, status.st_uid)
    return bool(group or status.st_mode & stat.S_IWOTH)


def _is_private_group(gid: int, uid: int) -> bool:
    """Whether only the user is in the group: it has the user's name, as distributions with a umask of 002 make it."""
    import grp

    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    name = user_name(uid)
    return group.gr_name == name and not set(group.gr_mem) - {name}


def user_name(uid: int) -> str:
    """Return the name of a user of this host, or its number."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"uid {uid}"


def unreadable(path: Path, error: OSError) -> ConflictError:
    """Return the error for a file of ours that can't be read: neither absent nor damaged."""
    return ConflictError(
        f"{path} can't be read: {error.strerror}", hint=f"sudo chown -R {os.geteuid()} {shlex.quote(str(path.parent))}"
    )
