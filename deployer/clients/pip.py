"""pip as a client: point it at the index, and back again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from deployer.clients import backups, files, pip_text
from deployer.clients.pip_config import (
    PipConfig,
    active_prefix,
    build_settings,
    client_state,
    global_files,
    home_of,
    read_config,
    upstream,
    user_file,
)
from deployer.errors import ClientFileError

__all__ = [
    "SCOPES",
    "ClientChange",
    "PipConfig",
    "PipSettings",
    "build_settings",
    "configure",
    "environment",
    "merge",
    "overridden",
    "past_the_proxy",
    "preview",
    "read_config",
    "target",
    "undo",
    "unmerge",
    "upstream",
]

SCOPES = ("user", "global", "site", "venv")


@dataclass(frozen=True, kw_only=True)
class PipSettings:
    """What pip is told: the address of the index (with ``/+simple/``), and its time-out in seconds."""

    index_url: str = field(repr=False)
    timeout: int

    def values(self) -> dict[str, str]:
        """The settings as pip.conf has them: a host to trust only where pip would refuse to talk to it else."""
        host = _host_to_trust(self.index_url)
        return {
            "index-url": self.index_url,
            "timeout": str(self.timeout),
            **({"trusted-host": host} if host else {}),
        }


def _host_to_trust(url: str) -> str:
    """``host:port`` of a plain http address that is not of this host; empty for all others.

    pip takes ``localhost``, 127.0.0.0/8 and ::1 for safe by itself (SECURE_ORIGINS in its ``network/session.py``);
    a trusted host it also forgives a wrong certificate, so there must not be one without need.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        safe = ip_address(host).is_loopback
    except ValueError:
        safe = host == "localhost"
    return "" if parts.scheme != "http" or safe else parts.netloc.rpartition("@")[2]


@dataclass(frozen=True, kw_only=True)
class ClientChange:
    """What was done to a client file, or would be: its bytes before and after (``None``: no file).

    ``backup``: the record that ``undo`` puts back; ``masks``: what keeps pip from using the file's values;
    ``warnings``: what else the user should know. One sentence each.
    """

    path: Path
    before: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)
    backup: Path | None = None
    masks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def text(self) -> str:
        """The content afterwards."""
        return (self.after or b"").decode()


def merge(text: str, settings: PipSettings) -> str:
    """``text`` of a pip.conf with ``settings`` in it; every other byte stays. Pure. Raises ClientFileError."""
    return pip_text.merge(text, settings.values())


def unmerge(text: str, *, original: str, settings: PipSettings) -> str:
    """The inverse of :func:`merge`, also when somebody changed other keys since. Pure. Raises ClientFileError."""
    return pip_text.unmerge(text, original=original, written=[settings.values()])[0]


def target(scope: str, *, env: Mapping[str, str], home: Path | None = None, platform: str = sys.platform) -> Path:
    """The file that ``scope`` means: ``user``, ``global`` (this system), ``venv`` (the active one), or ``site``
    (the python that ``pip`` runs with: the active venv, else the one on PATH).

    Raises ClientFileError when there is no active venv, or it can't be told which python that is.
    """
    match scope:
        case "user":
            return user_file(env, home=home or home_of(env), platform=platform)
        case "global":
            return global_files(env, home=home or home_of(env), platform=platform)[-1]
        case "venv":
            folder = env.get("VIRTUAL_ENV", "")
            if not folder or not (Path(folder) / "pyvenv.cfg").is_file():
                raise ClientFileError("no venv is active", hint="activate one, or choose --scope user")
            return Path(folder) / "pip.conf"
        case "site":
            prefix = active_prefix(env)
            if prefix is None:
                raise ClientFileError("it can't be told which python pip runs with", hint="choose --scope user")
            return prefix / "pip.conf"
    raise ClientFileError(f"there is no scope {scope!r}", hint=f"one of {', '.join(SCOPES)}")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """A client file: as it is addressed, where it really is, and what it is for."""

    path: Path
    real: Path
    home: Path
    owner: Path | None  # the home that must be this user's own
    state: Path
    env: Mapping[str, str]


def _place(scope: str, *, env: Mapping[str, str], home: Path | None, state: Path | None) -> _Place:
    home = home or home_of(env)
    path = target(scope, env=env, home=home)
    owner = home if scope == "user" else None
    real = files.check(path, home=owner)
    return _Place(path=path, real=real, home=home, owner=owner, state=state or client_state(), env=env)


def preview(
    settings: PipSettings,
    *,
    scope: str = "user",
    env: Mapping[str, str],
    home: Path | None = None,
    state: Path | None = None,
) -> ClientChange:
    """What :func:`configure` would do; nothing is written. Raises ClientFileError."""
    place = _place(scope, env=env, home=home, state=state)
    before = files.read_bytes(place.real)
    return _change(place, settings, before=before, after=_merged(place.path, before, settings))


def configure(
    settings: PipSettings,
    *,
    scope: str = "user",
    env: Mapping[str, str],
    home: Path | None = None,
    state: Path | None = None,
) -> ClientChange:
    """Put ``settings`` into the pip.conf of ``scope``, after a backup that :func:`undo` puts back.

    ``env`` says where pip's files are and what hides them. Raises ClientFileError, Locked.
    """
    place = _place(scope, env=env, home=home, state=state)
    with files.lock(place.real, state=place.state):
        before = files.read_bytes(place.real)
        after = _merged(place.path, before, settings)
        backup = None
        if after != before:
            record = _record(place, before).with_write(after, settings.values())
            # The record first: a crash between the two leaves a file that can still be put back.
            backup = backups.save(record, state=place.state)
            files.replace(place.path, after, expected=before, home=place.owner)
    return _change(place, settings, before=before, after=after, backup=backup)


def _change(
    place: _Place, settings: PipSettings, *, before: bytes | None, after: bytes, backup: Path | None = None
) -> ClientChange:
    config = read_config(place.env, home=place.home, state=place.state).with_file(place.path, after.decode())
    values = settings.values()
    host = values.get("trusted-host")
    trusted = (f"pip is told to trust {host}, since its address is plain http; give the index https",) if host else ()
    return ClientChange(
        path=place.path,
        before=before,
        after=after,
        backup=backup,
        masks=tuple(line for key in values for line in config.masks(key, place.path)),
        warnings=(*trusted, *config.warnings),
    )


def _merged(path: Path, before: bytes | None, settings: PipSettings) -> bytes:
    try:
        return merge(pip_text.decode(before or b""), settings).encode()
    except ClientFileError as error:
        raise ClientFileError(f"{path}: {error.message}", hint=error.hint) from None


def _record(place: _Place, before: bytes | None) -> backups.Backup:
    """The record of the file as it would be without deployer, given that it is ``before`` now."""
    mode = place.real.stat().st_mode & 0o7777 if before is not None else 0o644
    known = backups.load(place.real, state=place.state)
    if known is None:
        made = files.missing_parents(place.real)
        return backups.Backup(path=place.real, original=before, mode=mode, made=made)
    if before == known.original or known.wrote(before) or before is None:
        return known
    # Somebody else wrote it since: what they want is a part of what has to come back.
    original, _ = _unmerged(place.path, before, known)
    return backups.Backup(path=known.path, original=original, mode=mode, made=known.made, writes=known.writes)


def _unmerged(path: Path, now: bytes, backup: backups.Backup) -> tuple[bytes | None, tuple[str, ...]]:
    """The file as it is ``now`` without what is ours; ``None`` when nothing is left and there was no file."""
    try:
        text, kept = pip_text.unmerge(
            pip_text.decode(now), original=pip_text.decode(backup.original or b""), written=backup.values
        )
    except ClientFileError as error:
        raise ClientFileError(f"{path}: {error.message}", hint=error.hint) from None
    return (text.encode() if text.strip() or backup.original is not None else None), kept


def undo(
    *, scope: str = "user", env: Mapping[str, str], home: Path | None = None, state: Path | None = None
) -> ClientChange:
    """Put the pip.conf of ``scope`` back: the exact bytes and mode, or no file where there was none.

    When somebody else changed it since, only our keys go back, and ``warnings`` says so. Doing it again changes
    nothing. Raises ClientFileError, Locked.
    """
    path = target(scope, env=env, home=home)
    if backups.load(files.resolve(path), state=state or client_state()) is None:
        now = files.read_bytes(path)
        return ClientChange(path=path, before=now, after=now)
    place = _place(scope, env=env, home=home, state=state)
    with files.lock(place.real, state=place.state):
        backup = backups.load(place.real, state=place.state)
        before = files.read_bytes(place.real)
        if backup is None:
            return ClientChange(path=path, before=before, after=before)
        after, warnings = _undone(place, before, backup)
        _put(place, after, before=before, mode=backup.mode)
        _remove_made(backup)
        backups.drop(backup, state=place.state)
    return ClientChange(path=path, before=before, after=after, warnings=warnings)


def _undone(place: _Place, before: bytes | None, backup: backups.Backup) -> tuple[bytes | None, tuple[str, ...]]:
    if before is None and backup.original is not None:
        return backup.original, (f"{place.path} had been removed; it is back as it was before deployer",)
    if before is None or before == backup.original or backup.wrote(before):
        return backup.original, ()
    after, kept = _unmerged(place.path, before, backup)
    lines = [f"{place.path} was changed by somebody else since; their changes stay"]
    lines += [f"{key} in {place.path} is not what deployer wrote, and stays" for key in kept]
    return after, tuple(lines)


def _put(place: _Place, after: bytes | None, *, before: bytes | None, mode: int) -> None:
    if after is not None:
        if after != before or place.real.stat().st_mode & 0o7777 != mode:
            files.replace(place.path, after, expected=before, home=place.owner, mode=mode)
    elif before is not None:
        files.remove(place.path, expected=before, home=place.owner)


def _remove_made(backup: backups.Backup) -> None:
    """Remove the folders that were made for the file, as far as they are empty."""
    for folder in reversed(backup.made):
        with contextlib.suppress(OSError):
            folder.rmdir()


def environment(settings: PipSettings) -> dict[str, str]:
    """The variables that point one command at the index, and no file touched: for pip, and for uv.

    pip takes ``--default-timeout`` for another name of ``--timeout``; both are set, for one of them may be set
    already. uv wants the address with ``/+simple/`` as well.
    """
    seconds = str(settings.timeout)
    host = settings.values().get("trusted-host")
    return {
        "PIP_INDEX_URL": settings.index_url,
        "PIP_TIMEOUT": seconds,
        "PIP_DEFAULT_TIMEOUT": seconds,
        **({"PIP_TRUSTED_HOST": host} if host else {}),
        "UV_DEFAULT_INDEX": settings.index_url,
        "UV_HTTP_TIMEOUT": seconds,
    }


def past_the_proxy(settings: PipSettings, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep a proxy out of the way to the index, for which clients ask it, loopback or not."""
    host = urlsplit(settings.index_url).hostname or ""
    known = env.get("no_proxy") or env.get("NO_PROXY") or ""
    # "*" means every host only when it stands alone.
    value = known if known.strip() == "*" else ",".join(filter(None, (known, host)))
    return {"NO_PROXY": value, "no_proxy": value}


_UV_RISKS = ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX")


def overridden(env: Mapping[str, str], *, home: Path | None = None) -> tuple[str, ...]:
    """What under ``env`` makes pip or uv install from elsewhere too, one sentence each."""
    uv = [f"{name} is set: uv does not install from the index alone" for name in _UV_RISKS if env.get(name)]
    return (*read_config(env, home=home).warnings, *uv)
