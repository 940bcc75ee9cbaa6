"""Point any client at the index through one of its files, and restore that file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from deployer.clients import backups, files
from deployer.clients.client import Account, ClientFile, ClientSettings
from deployer.errors import ClientFileError


@dataclass(frozen=True, kw_only=True)
class ClientChange:
    """A change of a client file, made or proposed: its bytes before and after (``None``: no file).

    ``keys``: what is set in it; ``backup``: the record that :func:`undo` restores from; ``masks``: what overrides the
    file; ``warnings``: what else the user should know. One sentence each.
    """

    path: Path
    before: bytes | None = field(repr=False)
    after: bytes | None = field(repr=False)
    keys: tuple[str, ...] = ()
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
    """A file of ``client``: its path, and where it really is; ``owner``: the home that must belong to this user."""

    client: ClientFile
    path: Path
    real: Path
    owner: Path | None
    account: Account

    @property
    def state(self) -> Path:
        return self.account.state

    @property
    def part(self) -> str:
        return self.client.part(self.path)

    def merged(self, before: bytes | None, settings: ClientSettings) -> bytes:
        with _naming(self.path):
            return self.client.merge(before or b"", self.client.values(settings, self.path))

    def unmerged(self, now: bytes, backup: backups.Backup) -> tuple[bytes | None, tuple[str, ...]]:
        """The file without our values, and the keys that were kept; ``None`` for no file."""
        with _naming(self.path):
            rest = self.client.unmerge(now, original=backup.original or b"", written=backup.values)
        return (rest.content if rest.content.strip() or backup.original is not None else None), rest.kept


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the file's path to what a client says about its content."""
    try:
        yield
    except ClientFileError as error:
        raise ClientFileError(f"{path}: {error.message}", hint=error.hint) from None


def _target(client: ClientFile, scope: str, account: Account) -> Path:
    if scope not in client.scopes:
        raise ClientFileError(
            f"{client.name} has no scope {scope!r}", hint=f"set it to one of: {', '.join(client.scopes)}"
        )
    return client.detect(scope, account)


def _place(client: ClientFile, scope: str, account: Account) -> _Place:
    path = _target(client, scope, account)
    owner = account.home if scope == "user" else None
    return _Place(client=client, path=path, real=files.check(path, home=owner), owner=owner, account=account)


def preview(client: ClientFile, settings: ClientSettings, *, scope: str = "user", account: Account) -> ClientChange:
    """What :func:`configure` would do; nothing is written. Raises ClientFileError."""
    place = _place(client, scope, account)
    before = files.read_bytes(place.real)
    return _change(place, settings, before=before, after=place.merged(before, settings))


def configure(client: ClientFile, settings: ClientSettings, *, scope: str = "user", account: Account) -> ClientChange:
    """Put ``settings`` into the file of ``scope``, after a backup that :func:`undo` restores.

    Raises ClientFileError, Locked.
    """
    place = _place(client, scope, account)
    with files.lock(place.real, state=place.state):
        before = files.read_bytes(place.real)
        after = place.merged(before, settings)
        backup = None
        if after != before:
            record = _record(place, before).with_write(after, client.values(settings, place.path))
            # The record first: a crash between the two leaves a file that can still be restored.
            backup = backups.save(record, state=place.state)
            files.replace(place.path, after, expected=before, home=place.owner)
    return _change(place, settings, before=before, after=after, backup=backup)


def _change(
    place: _Place, settings: ClientSettings, *, before: bytes | None, after: bytes, backup: Path | None = None
) -> ClientChange:
    client = place.client
    keys = tuple(client.values(settings, place.path))
    config = client.read(place.account).with_file(place.path, after)
    return ClientChange(
        path=place.path,
        before=before,
        after=after,
        keys=keys,
        backup=backup,
        masks=tuple(dict.fromkeys(line for key in keys for line in config.masks(key, place.path))),
        warnings=(*client.cautions(settings), *config.warnings),
    )


def _record(place: _Place, before: bytes | None) -> backups.Backup:
    """The record of the file as it would be without deployer, given that it is ``before`` now."""
    mode = place.real.stat().st_mode & 0o7777 if before is not None else 0o644
    known = backups.load(place.real, state=place.state, part=place.part)
    if known is None:
        made = files.missing_parents(place.real)
        return backups.Backup(path=place.real, original=before, mode=mode, made=made, part=place.part)
    if before == known.original or known.wrote(before) or before is None:
        return known
    # Somebody else wrote it since: their changes have to be restored as well.
    original, _ = place.unmerged(before, known)
    return replace(known, original=original, mode=mode)


def undo(client: ClientFile, *, scope: str = "user", account: Account) -> ClientChange:
    """Restore the file of ``scope``: the exact bytes and mode, or no file where there was none.

    When somebody else changed it since, only our keys are restored, and ``warnings`` says so. Undoing twice changes
    nothing. Raises ClientFileError, Locked.
    """
    path = _target(client, scope, account)
    if backups.load(files.resolve(path), state=account.state, part=client.part(path)) is None:
        now = files.read_bytes(path)
        return ClientChange(path=path, before=now, after=now)
    place = _place(client, scope, account)
    with files.lock(place.real, state=place.state):
        backup = backups.load(place.real, state=place.state, part=place.part)
        before = files.read_bytes(place.real)
        if backup is None:
            return ClientChange(path=path, before=before, after=before)
        after, warnings = _undone(place, before, backup)
        _put(place, after, before=before, mode=backup.mode)
        _remove_made(backup)
        backups.drop(backup, state=place.state)
    return ClientChange(path=path, before=before, after=after, warnings=warnings)


def revert(client: ClientFile, change: ClientChange, *, scope: str, account: Account) -> None:
    """Take back ``change``, which :func:`configure` has just made. Raises ClientFileError, Locked."""
    place = _place(client, scope, account)
    backup = backups.load(place.real, state=place.state, part=place.part)
    if backup is None or backup.original == change.before:
        undo(client, scope=scope, account=account)
    elif change.before is not None:
        with files.lock(place.real, state=place.state):
            files.replace(place.path, change.before, expected=change.after, home=place.owner)


def _undone(place: _Place, before: bytes | None, backup: backups.Backup) -> tuple[bytes | None, tuple[str, ...]]:
    if before is None and backup.original is not None:
        return backup.original, (f"{place.path} had been removed; it is restored as it was before deployer",)
    if before is None or before == backup.original or backup.wrote(before):
        return backup.original, ()
    after, kept = place.unmerged(before, backup)
    lines = [f"{place.path} was changed by another program since; its changes are kept"]
    lines += [f"{key} in {place.path} is not what deployer wrote, and is kept" for key in kept]
    return after, tuple(lines)


def _put(place: _Place, after: bytes | None, *, before: bytes | None, mode: int) -> None:
    if after is not None:
        if after != before or place.real.stat().st_mode & 0o7777 != mode:
            files.replace(place.path, after, expected=before, home=place.owner, mode=mode)
    elif before is not None:
        files.remove(place.path, expected=before, home=place.owner)


def _remove_made(backup: backups.Backup) -> None:
    """Remove the directories that were made for the file, as far as they are empty."""
    for folder in reversed(backup.made):
        with contextlib.suppress(OSError):
            folder.rmdir()
