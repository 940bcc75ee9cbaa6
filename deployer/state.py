"""What deployer keeps of a deployment on this host: a lock and the profile that was applied last, 0600.

The truth about what runs is asked of the engine and of the server. The record here only remembers what was
meant, so that a difference can be shown; without it everything still works.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.errors import ConflictError, Locked, ProfileError

SCHEMA = 1
_OVERRIDE = {"key", "value", "source"}


def state_root() -> Path:
    """The directory of all deployments of this user (``DEPLOYER_STATE_DIR``, else the platform's)."""
    if override := os.environ.get("DEPLOYER_STATE_DIR"):
        return Path(override).absolute()  # a server that outlives us is told of it, and works elsewhere
    from platformdirs import user_state_path

    return user_state_path("deployer", appauthor=False)


def state_dir(name: str) -> Path:
    """The directory of the deployment ``name``; not created here."""
    return state_root() / name


@contextmanager
def _kept_at(path: Path) -> Iterator[None]:
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
    with _kept_at(directory):
        for path in (*reversed(directory.parents), directory):
            if not path.is_dir():
                path.mkdir(exist_ok=True, mode=0o700)
        if directory.stat().st_mode & 0o077:
            directory.chmod(0o700)
    return directory


@contextmanager
def hold(name: str, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of the deployment ``name``; it is the kernel's (flock) and dies with this process.

    ``wait``: seconds to wait for another run. Raises Locked, ConflictError.
    """
    from filelock import FileLock, Timeout

    path = make_private(state_dir(name)) / "lock"
    lock = FileLock(path, mode=0o600)
    with _kept_at(path):
        try:
            lock.acquire(timeout=wait, poll_interval=0.05)
        except Timeout:
            raise Locked(
                f"another run holds the lock of the deployment {name!r}",
                hint="wait for it, or let this run wait with --wait SECONDS",
            ) from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The last ``up`` that succeeded: what was meant, never a secret.

    ``overrides``: what options put over the profile, as the fields of ``loader.Override``.
    """

    profile_name: str
    profile_ref: str
    engine: str
    simple_url: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Mapping[str, Any]] = field(default_factory=list)


def read_applied(name: str) -> Applied | None:
    """The record of the last successful ``up``. Raises ProfileError when it is damaged or from a newer deployer."""
    path = state_dir(name) / "applied.json"
    cure = f"remove {path}: it is written anew by the next 'deployer up'"
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ProfileError(f"{path} is damaged", hint=cure) from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise ProfileError(f"{path} is damaged", hint=cure)
    if record["schema"] > SCHEMA:
        raise ProfileError(f"{path} was written by a newer deployer", hint=f"upgrade deployer, or {cure}")
    fields = {key: value for key, value in record.items() if key in Applied.__dataclass_fields__}
    overrides = fields.get("overrides", [])
    whole = isinstance(overrides, list) and all(isinstance(one, dict) and one.keys() == _OVERRIDE for one in overrides)
    try:
        if whole:
            return Applied(**fields)
    except TypeError:
        pass
    raise ProfileError(f"{path} is damaged", hint=cure)


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` atomically with ``text``, mode 0600 from its first moment. Raises ConflictError."""
    make_private(path.parent)
    with _kept_at(path):
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


def write_applied(name: str, applied: Applied) -> None:
    """Remember a successful ``up``. What is on record already is not written again. Raises ConflictError."""
    record = {"schema": SCHEMA} | {key: getattr(applied, key) for key in Applied.__dataclass_fields__}
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    path = state_dir(name) / "applied.json"
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass  # absent, or damaged
    write_private(path, text)


def forget(name: str) -> None:
    """Remove the record (the lock file stays: removing a lock that others may wait for is a race)."""
    (state_dir(name) / "applied.json").unlink(missing_ok=True)
