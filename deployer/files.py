"""Files that are replaced as a whole: the old content or the new one, whatever happens in between.

Every file that the command line keeps or hands over is written by :func:`replacing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_IRWXG
from typing import IO

from deployer.errors import ConflictError

PUBLIC = 0o644
PRIVATE = 0o600


@contextmanager
def replacing(
    path: Path,
    *,
    mode: int = PUBLIC,
    exact: bool = False,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
    directory: int | None = None,
) -> Iterator[IO[bytes]]:
    """A stream to write the new content of ``path`` to; it takes the place of the old one when the block ends.

    An exception in the block leaves ``path`` as it was. A symlink is replaced, never followed; resolve ``path`` first
    to follow one. The directory must exist.

    ``mode``: permissions from the first moment, less the umask; ``exact``: the umask is ignored. ``owner``: user and
    group id, where -1 keeps what a new file has; where this user may not give the file to the group, the group gets
    no permissions. ``durable``: it outlasts a loss of power. ``directory``: a descriptor of the parent directory, which
    another user may replace meanwhile; ``path`` is relative to it. Raises OSError.
    """
    # One name, not a random one: what a killed run leaves is replaced by the next, which holds the lock.
    temporary = path.with_name(f".{path.name}.deployer")
    _unlink(temporary, directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    closed = exact or owner is not None  # to everybody else, until it has its owner
    descriptor = os.open(temporary, flags, mode & PRIVATE if closed else mode, dir_fd=directory)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            if owner is not None:
                mode = _give(descriptor, owner, mode)
            yield stream
            stream.flush()
            if closed:
                os.fchmod(descriptor, mode)
            if durable:
                os.fsync(descriptor)
        os.replace(temporary, path, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _unlink(temporary, directory)
        raise
    if durable:
        sync(path.parent, directory)


def _unlink(path: Path, directory: int | None) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path, dir_fd=directory)


def _give(descriptor: int, owner: tuple[int, int], mode: int) -> int:
    """Give the file to ``owner``; the mode that it may have then."""
    status = os.fstat(descriptor)
    uid, gid = (
        -1 if wanted == now else wanted for wanted, now in zip(owner, (status.st_uid, status.st_gid), strict=True)
    )
    if uid != -1:
        os.fchown(descriptor, uid, -1)
    if gid != -1:
        try:
            os.fchown(descriptor, -1, gid)
        except PermissionError:
            return mode & ~S_IRWXG  # permissions of that group are not for another one
    return mode


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Report that ``path`` can't be written. Raises ConflictError."""
    try:
        yield
    except OSError as error:
        raise ConflictError(
            f"{path} can't be written: {error.strerror}",
            hint="deployer keeps its records there; name another directory with DEPLOYER_STATE_DIR",
        ) from None


def make_private(directory: Path) -> Path:
    """Create ``directory`` and every missing parent, for this user only (whatever the umask). Raises ConflictError."""
    with writable(directory):
        for path in (*reversed(directory.parents), directory):
            if not path.is_dir():
                path.mkdir(exist_ok=True, mode=0o700)
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
    return directory


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` with ``text``, mode 0600, in a private directory. Raises ConflictError."""
    make_private(path.parent)
    with writable(path), replacing(path, mode=PRIVATE) as stream:
        stream.write(text.encode())


def sync(path: Path, directory: int | None = None) -> None:
    """Make what was renamed or removed in the directory ``path`` outlast a loss of power (fsync(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        with suppress(OSError):  # some network file systems can't
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
