"""Take a backup of a server directory, on which a server may run and take uploads.

The database is copied first, as of one moment; then every file that this copy knows becomes a blob. A file that was
deleted in between is found missing, and the round is repeated. It is short: only what was committed since is looked at,
and an open file stays readable when it is deleted. After a few rounds commits wait while the new files are opened,
which takes some milliseconds. A file that is missing twice, while no commit between two copies touched it, was lost by
the server. The server's own database is read for nothing but the copy: while it is read, commits wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer import __version__
from deployer.protocol import NODEINFO, Backup, ExitCode, LastBackup, Lost, Refusal, parsed
from deployer.server.backup import database, owners
from deployer.server.backup.repository import Damaged, Repository, open_file
from deployer.server.boot.prepare import LAYOUTFILE, uuid_of
from deployer.server.devpi import stored
from deployer.server.devpi.installed import server_version
from deployer.server.devpi.stored import FILES, Stored
from deployer.server.secret_files import Private, write_private

FREE_ROUNDS, HELD_ROUNDS = 4, 3
"""Rounds in which commits go on, and rounds in which they wait for the look at what is new."""
RENAMES = 2.0
"""Seconds in which a file of a commit gets its name: devpi renames it after the commit."""
HELD_RENAMES = 0.02
"""The same while commits may wait."""
OPENED = 256
"""Files that are opened before they are taken; of more, a first round is made."""
EVENTS = ".event_serial"
_SMALL = (NODEINFO, LAYOUTFILE, EVENTS)
_SEARCH = ".indices"
"""devpi-web's index for searches. It is not in a backup; without EVENTS devpi-web makes it anew."""


def create(serverdir: Path, repository: Repository, *, cache: bool) -> dict[str, object]:
    """Take a backup; ``cache``: with the files of mirrors. Raises Refusal; then there is no new backup."""
    if uuid_of(serverdir) is None or not stored.database(serverdir).exists():
        raise Refusal(f"{serverdir} holds no data of devpi", hint="name the server directory", code=ExitCode.REFUSED)
    with repository.locked():
        started = time.monotonic()
        said = _incoming(repository)
        earlier = repository.all()
        _check_deployment(repository, earlier, said["deployment"])
        repository.clear()
        small = {name: text for name in _SMALL if (text := _small(serverdir, name)) is not None}
        same = [backup for backup in earlier[-1:] if backup.cache == cache and not backup.lost]
        backup = _taken(serverdir, repository, same, cache=cache)
        first = owners.listed(Private.of(serverdir).owners)
        backup = replace(
            backup,
            **said,
            name=_name(earlier),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            deployer=__version__,
            server_version=server_version(),
            uuid=uuid_of(serverdir) or "",
            database=stored.database(serverdir).name,
            cache=cache,
            small=small,
            owners_sha256=repository.keep_bytes(first) if first else "",
        )
        repository.complete(backup)
        incoming(repository.directory).unlink(missing_ok=True)
    last = LastBackup(name=backup.name, created=backup.created, files=backup.files, lost=len(backup.lost))
    with contextlib.suppress(OSError):  # only the pages show it
        write_private(Private.of(serverdir).backup, json.dumps(last), durable=False)
    return {
        **backup.summary,
        "new_bytes": repository.added,
        "linked": repository.linked,
        "seconds": round(time.monotonic() - started, 2),
    }


def _taken(serverdir: Path, repository: Repository, same: Sequence[Backup], *, cache: bool) -> Backup:
    """Take in the database and every file that it knows. ``same``: the last backup, if it is of the same kind."""
    live = stored.database(serverdir)
    files = _Files(repository, serverdir, cache, repository.known())
    with database.Copy(live, repository.new / "database") as copied, contextlib.closing(files):
        if same and _is_unchanged(repository, copied, same[0], files.known):
            return same[0]
        for number in range(FREE_ROUNDS + HELD_ROUNDS):
            if number < FREE_ROUNDS:
                copied.renew()
                files.look(copied.target)
            else:
                with copied.renewed():
                    files.look(copied.target, held=True)
            copied.check()
            files.take()
            if files.complete:
                break
        else:
            raise Refusal(
                f"files are deleted from {serverdir}, and not by devpi",
                hint="find out who deletes them, then run deployer check",
                code=ExitCode.VERIFICATION,
            )
        pieces = database.keep(repository, copied.target)
    text = "".join(f"{digest}  {path}\n" for path, digest in sorted(files.taken.items()))
    listed = repository.keep_bytes(text.encode("utf-8", "surrogateescape"))
    return Backup(
        pieces=tuple(pieces),
        serial=files.serial,
        files_sha256=listed,
        files=len(files.taken),
        left_out=files.left_out,
        size=repository.size((*files.taken.values(), *pieces)),
        lost=tuple(files.lost),
    )


def _is_unchanged(repository: Repository, copied: database.Copy, last: Backup, known: set[str]) -> bool:
    """Whether the database is that of the ``last`` backup, which is still whole."""
    copied.renew()
    copied.check()
    if database.keep(repository, copied.target) != list(last.pieces):
        return False
    try:
        return all(digest in known for digest, _ in repository.files(last))
    except Damaged:
        return False


@dataclass
class _Files:
    """The files that the copied database knows, and what became of them. ``known``: digests of all blobs.

    ``taken``: digests by path. ``lost``, ``left_out``: those that have no blob. ``complete``: all others are taken.
    """

    repository: Repository
    serverdir: Path
    cache: bool
    known: set[str]
    serial: int = -1
    taken: dict[str, str] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    left_out: int = 0
    complete: bool = False
    _listed: dict[str, Stored] = field(default_factory=dict)
    _new: dict[str, Stored] = field(default_factory=dict)
    """Of ``_listed``, those that may have no blob yet."""
    _missing: dict[str, Stored] = field(default_factory=dict)
    """Of ``_new``, those that were not there, and that no commit has touched since."""
    _opened: dict[str, int] = field(default_factory=dict)

    def look(self, copied: Path, *, held: bool = False) -> None:
        """Read what has changed since the last look, and open the new files if they are few. ``held``: commits wait."""
        with stored.connect(copied) as connection:
            for path, file in stored.changed(connection, since=self.serial):
                self._listed.pop(path, None)
                self._new.pop(path, None)
                self._missing.pop(path, None)
                self.taken.pop(path, None)
                if not held:
                    self.repository.rest()
                if file is not None:
                    self._listed[path] = self._new[path] = file
            self.serial = stored.serial(connection)
        until = time.monotonic() + HELD_RENAMES
        new = [path for path, file in self._new.items() if self.cache or not file.mirror]
        while len(new) <= OPENED:
            new = [path for path in new if not self._open(path)]
            if not new or time.monotonic() > until:
                break
            time.sleep(0.002)

    def _open(self, path: str) -> bool:
        try:
            self._opened[path] = open_file(self.serverdir / FILES / path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True  # it is tried again, and reported, when it is taken
        return True

    def close(self) -> None:
        for descriptor in self._opened.values():
            os.close(descriptor)
        self._opened.clear()

    def take(self) -> None:
        """Make a blob of each file that is none yet."""
        known_missing, self._missing, self.lost = self._missing, {}, []
        self.left_out = sum(file.mirror and not self.cache for file in self._listed.values())
        for file in self._new.values():
            if file.mirror and not self.cache:
                continue
            if file.sha256 in self.known:
                self.taken[file.path] = file.sha256 or ""
            else:
                self._take(file)
        self.close()
        deadline = time.monotonic() + RENAMES
        while self._missing.keys() - known_missing.keys() and time.monotonic() < deadline:
            time.sleep(0.1)
            again, self._missing = self._missing, {}
            for file in again.values():
                self._take(file)
        self.complete = self._missing.keys() <= known_missing.keys()
        wrong = {*self._missing, *(lost.path for lost in self.lost)}
        self._new = {path: file for path, file in self._new.items() if path in wrong}
        self.lost += [Lost(path=path, why="missing", mirror=file.mirror) for path, file in self._missing.items()]

    def _take(self, file: Stored) -> None:
        path = self.serverdir / FILES / file.path
        try:
            digest = self.repository.keep_file(path, file.hashes, opened=self._opened.pop(file.path, None))
        except (FileNotFoundError, NotADirectoryError):
            self._missing[file.path] = file
        except (Damaged, PermissionError) as error:
            self.lost.append(Lost(path=file.path, why=str(error), mirror=file.mirror))
        else:
            self.taken[file.path] = digest
            self.known.add(digest)


def incoming(directory: Path) -> Path:
    """What the command line adds to the next backup: deployment, profile and encrypted secrets."""
    return directory / "incoming.json"


def _incoming(repository: Repository) -> dict[str, Any]:
    try:
        said = parsed(incoming(repository.directory).read_bytes())
    except (FileNotFoundError, ValueError):
        said = {}
    return {
        "deployment": str(said.get("deployment", "")),
        "profile": dict(said.get("profile") or {}),
        "secrets": str(said.get("secrets", "")),
    }


def _check_deployment(repository: Repository, earlier: Sequence[Backup], deployment: str) -> None:
    if earlier and earlier[-1].deployment != deployment:
        raise Refusal(
            f"{repository.directory} holds backups of the deployment {earlier[-1].deployment!r}",
            hint="choose another directory for these backups",
            code=ExitCode.CONFLICT,
        )


def _small(serverdir: Path, name: str) -> str | None:
    if name == EVENTS and (serverdir / _SEARCH).exists():
        return None
    try:
        return (serverdir / name).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _name(earlier: Sequence[Backup]) -> str:
    """A number, which grows whatever the clock does, and the time."""
    number = 1 + max((int(backup.name.partition("-")[0]) for backup in earlier), default=0)
    return f"{number:04}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
