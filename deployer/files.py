"""Private files of ours: replaced atomically and durably, 0600 from their first moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployer.errors import ConflictError


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Tell that ``path`` can't be written. Raises ConflictError."""
    try:
        yield
    except OSError as error:
        raise ConflictError(
            f"{path} can't be written: {error.strerror}",
            hint="deployer keeps its records there; name another directory with DEPLOYER_STATE_DIR",
        ) from None


def make_private(directory: Path) -> Path:
    """Create ``directory`` for this user's eyes only, and so every parent that is missing (whatever the umask).

    Raises ConflictError.
    """
    with writable(directory):
        for path in (*reversed(directory.parents), directory):
            if not path.is_dir():
                path.mkdir(exist_ok=True, mode=0o700)
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
    return directory


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` atomically with ``text``, mode 0600 from its first moment. Raises ConflictError."""
    make_private(path.parent)
    with writable(path):
        _replace(path, text)


def _replace(path: Path, text: str) -> None:
    # One name, not a random one: what a killed run leaves is replaced by the next, which holds the lock.
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(directory: Path) -> None:
    """Make what was renamed or removed in ``directory`` outlast a loss of power (fsync(2))."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some network file systems can't
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
