"""Files in a directory that another user may write: opened step by step, never through a link, bounded in size.

The server's user owns its directory and may put anything there. A command that runs as root must not be led out of it:
each component is opened relative to its parent with ``O_NOFOLLOW`` (openat(2)), and only a regular file that belongs to
the directory's owner, or to the caller, is read.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deployer.files import PRIVATE, replacing

LIMIT = 1 << 20
"""Bytes that a small file of a server directory may have."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a FIFO must not wait for somebody to write to it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass
class Untrusted(Exception):
    """A file that is not what it has to be. ``path``: which; ``why``: the end of a sentence that begins with it."""

    path: Path
    why: str
    uid: int = -1

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


def read(directory: Path, relative: str, *, limit: int = LIMIT) -> bytes | None:
    """Return the content of the regular file ``relative`` (``a/b``) below ``directory``; None when it is absent.

    Raises Untrusted for a link, a special file, a file of another owner or one larger than ``limit`` bytes;
    PermissionError where this user may not look.
    """
    *parents, name = Path(relative).parts
    try:
        with _descended(directory, parents) as parent:
            owner = os.fstat(parent).st_uid
            with _opened(name, _FILE, parent, directory / relative) as descriptor:
                _check(os.fstat(descriptor), directory / relative, owner=owner, limit=limit)
                return _content(descriptor, directory / relative, limit)
    except FileNotFoundError:
        return None


def tail(directory: Path, relative: str, *, limit: int = LIMIT) -> bytes | None:
    """As :func:`read`, of the last ``limit`` bytes of a file of any size."""
    *parents, name = Path(relative).parts
    path = directory / relative
    try:
        with _descended(directory, parents) as parent:
            owner = os.fstat(parent).st_uid
            with _opened(name, _FILE, parent, path) as descriptor:
                size = os.fstat(descriptor).st_size
                _check(os.fstat(descriptor), path, owner=owner, limit=size)
                return os.pread(descriptor, limit, max(size - limit, 0))
    except FileNotFoundError:
        return None


def replace(directory: Path, relative: str, content: bytes) -> None:
    """Replace the file ``relative`` below ``directory`` atomically: 0600, of the owner of its parent directory.

    Raises Untrusted for a parent that is a link, OSError.
    """
    *parents, name = Path(relative).parts
    with _descended(directory, parents) as parent:
        status = os.fstat(parent)
        owner = (status.st_uid, status.st_gid)
        with replacing(Path(name), mode=PRIVATE, owner=owner, directory=parent) as stream:
            stream.write(content)


def make_directory(directory: Path, name: str) -> None:
    """Create the directory ``name`` in ``directory``, 0700, of the same owner; nothing when it is there.

    Raises Untrusted, OSError.
    """
    with _descended(directory, []) as parent:
        status = os.fstat(parent)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            with _opened(name, _DIRECTORY, parent, directory / name):
                return
        with _opened(name, _DIRECTORY, parent, directory / name) as descriptor:
            if os.geteuid() != status.st_uid:
                os.fchown(descriptor, status.st_uid, status.st_gid)


def locked(directory: Path, relative: str) -> bool:
    """Whether a process holds the lock (flock(2)) on the file ``relative`` below ``directory``; counts across the
    containers of this host. Raises Untrusted; PermissionError where this user may not look."""
    *parents, name = Path(relative).parts
    try:
        with _descended(directory, parents) as parent, _opened(name, _FILE, parent, directory / relative) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except FileNotFoundError:
        return False


@contextmanager
def _descended(directory: Path, parents: list[str]) -> Iterator[int]:
    """The descriptor of the directory that ``parents`` lead to, no link among them."""
    with ExitStack() as stack:
        place = stack.enter_context(_opened(os.fspath(directory), _DIRECTORY, None, directory))
        owner, path = os.fstat(place).st_uid, directory
        for name in parents:
            path = path / name
            place = stack.enter_context(_opened(name, _DIRECTORY, place, path))
            uid = os.fstat(place).st_uid
            if uid not in (owner, os.geteuid()):
                raise Untrusted(path, f"belongs to uid {uid}, not to uid {owner}", uid)
        yield place


@contextmanager
def _opened(name: str, flags: int, parent: int | None, path: Path) -> Iterator[int]:
    try:
        descriptor = os.open(name, flags, dir_fd=parent)
    except (NotADirectoryError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        what = "is a link" if _is_link(name, parent) else f"can't be used: {error.strerror}"
        raise Untrusted(path, what) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_link(name: str, parent: int | None) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _check(status: os.stat_result, path: Path, *, owner: int, limit: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Untrusted(path, "is not a regular file")
    if status.st_uid not in (owner, os.geteuid()):
        raise Untrusted(path, f"belongs to uid {status.st_uid}, not to uid {owner}", status.st_uid)
    if status.st_size > limit:
        raise Untrusted(path, f"is larger than {limit} bytes")


def _content(descriptor: int, path: Path, limit: int) -> bytes:
    parts, size = [], 0
    while part := os.read(descriptor, 1 << 16):
        parts.append(part)
        size += len(part)
        if size > limit:  # it grows while it is read
            raise Untrusted(path, f"is larger than {limit} bytes")
    return b"".join(parts)
