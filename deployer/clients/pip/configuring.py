"""Pointing pip at the index through one of its files, and putting that file back."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployer.clients import backups, files
from deployer.clients.pip import grammar
from deployer.clients.pip.merging import merge
from deployer.clients.pip.places import client_state, home_of, target
from deployer.clients.pip.reading import read_config
from deployer.clients.pip.settings import PipSettings
from deployer.clients.pip.unmerging import unmerge
from deployer.errors import ClientFileError


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
        return merge(grammar.decode(before or b""), settings.values()).encode()
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
        text, kept = unmerge(
            grammar.decode(now), original=grammar.decode(backup.original or b""), written=backup.values
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
