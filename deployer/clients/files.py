"""Client files on disk: checked, locked and replaced atomically.

A symlink is followed and stays one. A file or home directory of another user is refused before anything is written.
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
"""The largest file that is read as a client file or as a backup of one."""

LOCK_WAIT = 10.0
"""Seconds to wait for another run that writes the same file; it holds the lock for milliseconds."""

_CREDENTIALS = re.compile(rb"://[^/\s@]*@|(?m:^machine [^\n]* account deployer password )")


def check(path: Path, *, home: Path | None = None) -> Path:
    """Return the real path of ``path`` if this user may replace the file there; nothing is changed.

    ``home``: the home directory that the path was derived from. Raises ClientFileError when the path is not a regular
    file, is not writable, or (like ``home``) belongs to another user, as after a ``sudo`` that kept HOME.
    """
    real = resolve(path)
    with _refusals(path):
        if home is not None and home.exists():
            _check_owner(home, path)
        folder = existing_parent(real)
        if real.exists():
            _check_file(real, path)
        elif os.geteuid() == 0 or path.is_symlink():
            # Root may write anywhere, so only the owner of the directory shows a mix-up. A dangling symlink must not
            # create a file in a directory of another user.
            _check_owner(folder, path)
        if not folder.is_dir():
            raise ClientFileError(f"{path} can't be created: {folder} is not a directory", hint=f"move {folder} away")
        if path.is_symlink() and not real.parent.is_dir():
            raise ClientFileError(
                f"{path} is a symlink into {real.parent}, which does not exist",
                hint=f"rm {path}, or mkdir {real.parent}",
            )
        if not _may(folder, os.W_OK | os.X_OK):
            raise ClientFileError(f"{path} can't be written: {folder} is not writable", hint=_CURE)
    return real


def _may(place: Path, mode: int) -> bool:
    return os.access(place, mode, effective_ids=os.access in os.supports_effective_ids)


_CURE = "choose another --scope, or use 'deployer exec -- pip ...', which writes no file"


def resolve(path: Path) -> Path:
    """Resolve the symlinks of ``path``, which need not exist. Raises ClientFileError for a loop."""
    try:
        return path.resolve(strict=True)
    except FileNotFoundError:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        reason = "a loop of symlinks" if isinstance(error, RuntimeError) else error.strerror
        raise ClientFileError(f"{path} can't be resolved: {reason}", hint=f"check the symlinks: ls -l {path}") from None


def existing_parent(path: Path) -> Path:
    """The nearest existing directory above ``path``."""
    return next(parent for parent in path.parents if os.path.lexists(parent))


def _check_owner(place: Path, path: Path) -> None:
    uid = place.stat().st_uid
    if uid != os.geteuid():
        raise ClientFileError(
            f"{path} is not touched: {place} belongs to uid {uid}, and this runs as uid {os.geteuid()}",
            hint="run it as the owner (without sudo, or with sudo -H)",
        )


def _check_file(real: Path, path: Path) -> None:
    status = real.stat()
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise ClientFileError(f"{path} is {kind}", hint=f"move {path} away")
    _check_owner(real, path)
    # Root ignores modes, but a file without write permission was made so on purpose.
    if not status.st_mode & stat.S_IWUSR or not _may(real, os.W_OK):
        raise ClientFileError(f"{path} is read-only", hint=f"chmod u+w {real}, or {_CURE}")


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Raise ClientFileError for what the operating system refuses."""
    try:
        yield
    except OSError as error:
        raise ClientFileError(f"{path} can't be written: {error.strerror or error}", hint=_CURE) from None


def read_bytes(path: Path) -> bytes | None:
    """The content of ``path``; ``None`` when there is no such file. Raises ClientFileError when it can't be read."""
    try:
        # O_NONBLOCK: opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = stream.read(MAX_BYTES + 1) if regular else b""
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClientFileError(
            f"{path} can't be read: {error.strerror}", hint=f"check its permissions: ls -l {path}"
        ) from None
    if not regular:
        raise ClientFileError(f"{path} is not a regular file", hint=f"move {path} away")
    if len(content) > MAX_BYTES:
        raise ClientFileError(f"{path} is larger than {MAX_BYTES} bytes", hint=f"move {path} away")
    return content


def replace(
    path: Path, new: bytes, *, expected: bytes | None, home: Path | None = None, mode: int | None = None
) -> None:
    """Make ``new`` the content of ``path``, atomically and durably.

    ``expected``: the former content (``None``: no file). If the file differs, another program wrote it and nothing is
    changed. The mode is kept unless one is given. A new file gets 0644 less the umask; one that gets credentials
    becomes 0600. Missing directories are created, private ones under ``home``. Raises ClientFileError.
    """
    real = check(path, home=home)
    _expect(real, expected, path)
    with _refusals(path):
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
    with _refusals(path):
        real.unlink()
        sync(real.parent)


def missing_parents(path: Path) -> tuple[Path, ...]:
    """The directories that have to be created for ``path``, the outermost first."""
    return tuple(reversed([parent for parent in path.parents if not os.path.lexists(parent)]))


def _expect(real: Path, expected: bytes | None, path: Path) -> None:
    if read_bytes(real) != expected:
        raise ClientFileError(f"{path} was changed by another program meanwhile", hint="run the command again")


def _secret(content: bytes) -> bool:
    return bool(_CREDENTIALS.search(content))


def digest(path: Path) -> str:
    """The name of the lock and of the backup of the file ``path``."""
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:24]


@contextlib.contextmanager
def lock(real: Path, *, state: Path) -> Iterator[None]:
    """Hold the lock of the file ``real``. ``state``: the private directory of locks and backups.

    Raises Locked after ``LOCK_WAIT``, ClientFileError when ``state`` can't be used.
    """
    from filelock import FileLock, Timeout

    check(state / "lock")
    with _refusals(state):
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        state.chmod(0o700)
        held = FileLock(state / f"{digest(real)}.lock", mode=0o600)
    try:
        held.acquire(timeout=LOCK_WAIT, poll_interval=0.02)
    except Timeout:
        raise Locked(f"another run is writing {real}", hint="run the command again when it has finished") from None
    except OSError as error:
        raise ClientFileError(f"{held.lock_file} can't be locked: {error.strerror}", hint=_CURE) from None
    try:
        yield
    finally:
        held.release()
