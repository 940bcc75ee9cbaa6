"""A directory in memory for what nginx must find and no disk should keep: the grants of readers.

``run/granted`` is a link to it. Without a file system in memory there is no link, and nginx passes the requests on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

GRANTED = "granted"
_PREFIX = "deployer-granted-"
_PLACES = ("/dev/shm", "/run", "/tmp")  # noqa: S108 - each checked to be in memory, the directory made by mkdtemp
_KINDS = frozenset({"tmpfs", "ramfs"})


def make(run: Path) -> None:
    """Make the directory and the link; remove directories of servers of this user that were killed."""
    for place in _PLACES:
        if place in _mounted():
            with contextlib.suppress(OSError):
                _sweep(Path(place))
                (run / GRANTED).symlink_to(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place))
                return


def _sweep(place: Path) -> None:
    for left in place.glob(f"{_PREFIX}*"):
        process = left.name.removeprefix(_PREFIX).partition("-")[0]
        if left.lstat().st_uid == os.geteuid() and not left.is_symlink() and not Path(f"/proc/{process}").exists():
            shutil.rmtree(left, ignore_errors=True)


def remove(run: Path) -> None:
    """Remove the directory that the link of this or a former server leads to."""
    with contextlib.suppress(OSError):
        found = (run / GRANTED).readlink()
        if found.name.startswith(_PREFIX) and found.lstat().st_uid == os.geteuid():
            shutil.rmtree(found, ignore_errors=True)


def _mounted() -> frozenset[str]:
    """The mount points of file systems in memory (proc_pid_mountinfo(5))."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    parts = (line.partition(" - ") for line in lines)
    return frozenset(before.split()[4] for before, _, after in parts if after.split(" ")[0] in _KINDS)
