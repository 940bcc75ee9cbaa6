"""Client files on disk: one writer at a time, the old bytes or the new ones and nothing between.

A file is replaced in the folder where it really is (a symlink stays one): temporary file, fsync, rename, fsync of
the folder. What belongs to somebody else is refused before anything is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from deployer.errors import ClientFileError, Locked
from deployer.files import PRIVATE, PUBLIC, replacing, sync

MAX_BYTES = 1 << 22
"""What is larger is neither a client file nor a record of one."""

LOCK_WAIT = 10.0
"""Seconds to wait for another run that writes the same file; it holds the lock for milliseconds."""

_CREDENTIALS = re.compile(rb"://[^/\s@]*@")


def check(path: Path, *, home: Path | None = None) -> Path:
    """Where ``path`` really is, when this user may replace it there; nothing is changed.

    ``home``: the home directory that the path was derived from. Raises ClientFileError: something that is no file
    is in its place, it is not writable, or it (or ``home``) belongs to another user, as after a ``sudo`` that kept
    HOME.
    """
    real = resolve(path)
    with _told(path):
        if home is not None and home.exists():
            _check_owner(home, path)
        folder = existing_parent(real)
        if real.exists():
            _check_file(real, path)
        elif os.geteuid() == 0 or path.is_symlink():
            # Root may write anywhere, so that who owns the folder is the only sign of a mix-up; and a symlink to
            # a file that is not there must not plant one in a folder of somebody else.
            _check_owner(folder, path)
        if not folder.is_dir():
            raise ClientFileError(f"{path} can't be made: {folder} is not a directory", hint="look at it yourself")
        if path.is_symlink() and not real.parent.is_dir():
            raise ClientFileError(f"{path} is a symlink into {real.parent}, which is not there", hint="remove the link")
        if not _may(folder, os.W_OK | os.X_OK):
            raise ClientFileError(f"{path} can't be written: {folder} is not writable", hint=_CURE)
    return real


def _may(place: Path, mode: int) -> bool:
    return os.access(place, mode, effective_ids=os.access in os.supports_effective_ids)


_CURE = "choose another --scope, or use 'deployer exec -- pip ...', which writes no file"


def resolve(path: Path) -> Path:
    """``path`` without symlinks, whether or not there is a file. Raises ClientFileError for a loop."""
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        reason = "a loop of symlinks" if isinstance(error, RuntimeError) else error.strerror
        raise ClientFileError(f"{path} can't be reached: {reason}", hint="look at it yourself") from None


def existing_parent(path: Path) -> Path:
    """The nearest folder above ``path`` that exists."""
    return next(parent for parent in path.parents if os.path.lexists(parent))


def _check_owner(place: Path, path: Path) -> None:
    uid = place.stat().st_uid
    if uid != os.geteuid():
        raise ClientFileError(
            f"{path} is left alone: {place} belongs to uid {uid}, and this runs as uid {os.geteuid()}",
            hint="run it as the owner (without sudo, or with sudo -H)",
        )


def _check_file(real: Path, path: Path) -> None:
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ClientFileError(f"{path} is {kind}", hint="move it away")
    _check_owner(real, path)
    # Root ignores modes, but a file that nobody may write was made so on purpose.
    if not status.st_mode & stat.S_IWUSR or not _may(real, os.W_OK):
        raise ClientFileError(f"{path} is read-only", hint=f"chmod u+w {real}, or {_CURE}")


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise ClientFileError(f"{path} can't be written: {error.strerror or error}", hint=_CURE) from None


def read_bytes(path: Path) -> bytes | None:
    """The content of ``path``; ``None`` when there is no such file. Raises ClientFileError when it can't be read."""
    try:
        # Not waiting for a writer, should it be a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = stream.read(MAX_BYTES + 1) if regular else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClientFileError(f"{path} can't be read: {error.strerror}", hint="look at it yourself") from None
    if not regular:
        raise ClientFileError(f"{path} is not a regular file", hint="move it away")
    if len(content) > MAX_BYTES:
        raise ClientFileError(f"{path} is larger than {MAX_BYTES} bytes", hint="look at it yourself")
    return content


def replace(
    path: Path, new: bytes, *, expected: bytes | None, home: Path | None = None, mode: int | None = None
) -> None:
    """Make ``new`` the content of ``path``, atomically and durably.

    ``expected``: what it must still hold (``None``: no file), else somebody else has written it and nothing is
    changed. The mode is kept unless one is given; a new file gets 0644 under the umask, and 0600 when ``new``
    brings credentials into it. Folders that are missing are made, private ones under ``home``.
    Raises ClientFileError.
    """
    real = check(path, home=home)
    _expect(real, expected, path)
    with _told(path):
        for folder in missing_parents(real):
            folder.mkdir(mode=0o700 if home is not None and folder.is_relative_to(home.resolve()) else 0o755)
        former = real.stat() if real.exists() else None
        kept = former is not None or mode is not None
        if mode is None:
            exposes = _secret(new) and not _secret(expected or b"")
            mode = PRIVATE if exposes else stat.S_IMODE(former.st_mode) if former else PUBLIC
        owner = (-1, former.st_gid) if former else None
        with replacing(real, mode=mode, exact=kept, owner=owner) as stream:
            stream.write(new)
            stream.flush()
            _expect(real, expected, path)


def remove(path: Path, *, expected: bytes, home: Path | None = None) -> None:
    """Remove the file ``path`` if it still holds ``expected``. Raises ClientFileError."""
    real = check(path, home=home)
    _expect(real, expected, path)
    with _told(path):
        real.unlink()
        sync(real.parent)


def missing_parents(path: Path) -> tuple[Path, ...]:
    """The folders that have to be made for ``path``, the outermost first."""
    return tuple(reversed([parent for parent in path.parents if not os.path.lexists(parent)]))


def _expect(real: Path, expected: bytes | None, path: Path) -> None:
    if read_bytes(real) != expected:
        raise ClientFileError(f"{path} was changed by another program meanwhile", hint="run it again")


def _secret(content: bytes) -> bool:
    return bool(_CREDENTIALS.search(content))


def digest(path: Path) -> str:
    """A name for what is kept about the file at ``path``."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:24]


@contextlib.contextmanager
def lock(real: Path, *, state: Path) -> Iterator[None]:
    """Be the only run of this user that writes ``real``. ``state``: the private folder that locks and backups are in.

    Raises Locked when another run does not finish, ClientFileError when ``state`` can't be used.
    """
    from filelock import FileLock, Timeout

    check(state / "lock")
    with _told(state):
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.chmod(0o700)
        held = FileLock(state / f"{digest(real)}.lock", mode=0o600)
    try:
        held.acquire(timeout=LOCK_WAIT, poll_interval=0.02)
    except Timeout:
        raise Locked(f"another run is writing {real}", hint="wait for it to finish") from None
    except OSError as error:
        raise ClientFileError(f"{held.lock_file} can't be locked: {error.strerror}", hint=_CURE) from None
    try:
        yield
    finally:
        held.release()
