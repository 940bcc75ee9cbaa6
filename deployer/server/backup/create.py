"""Take a backup of a server directory, on which a server may run and take uploads.

The database is copied first, as of one moment; then every file that this copy knows becomes a blob. A file that was
deleted in between is found missing, and the round is repeated: its blobs are there already, so it is short. After a few
rounds commits are held back for the last one. The manifest gets its name when nothing is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deployer import __version__
from deployer.protocol import NODEINFO, Backup, ExitCode, Lost, Refusal, parsed
from deployer.server.backup import database
from deployer.server.backup.repository import Damaged, Repository
from deployer.server.boot.prepare import LAYOUTFILE, uuid_of
from deployer.server.devpi import stored
from deployer.server.devpi.installed import server_version
from deployer.server.devpi.stored import FILES, Stored

FREE_ROUNDS = 4
"""Rounds in which commits go on."""
RENAMES = 2.0
"""Seconds in which a file of a commit gets its name: devpi renames it after the commit."""
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
        )
        repository.complete(backup)
        incoming(repository.directory).unlink(missing_ok=True)
    return {
        **backup.summary,
        "new_bytes": repository.added,
        "linked": repository.linked,
        "seconds": round(time.monotonic() - started, 2),
    }


def _taken(serverdir: Path, repository: Repository, same: Sequence[Backup], *, cache: bool) -> Backup:
    """Take in the database and every file that it knows. ``same``: the last backup, if it is of the same kind."""
    live, copied = stored.database(serverdir), repository.new / "database"
    known = repository.known()
    for number in range(FREE_ROUNDS + 1):
        with database.writers_held(live) if number == FREE_ROUNDS else contextlib.nullcontext():
            database.copy(live, copied)
            pieces = database.keep(repository, copied)
            if same and list(same[0].pieces) == pieces and _whole(repository, same[0], known):
                return same[0]
            found = _files(repository, serverdir, copied, cache=cache, known=known)
            lost = _lost(found.missing, live, serverdir)
            if lost is None:
                continue  # files were deleted since the database was copied
        text = "".join(f"{digest}  {path}\n" for path, digest in sorted(found.files.items()))
        listed = repository.keep_bytes(text.encode("utf-8", "surrogateescape"))
        sizes = sum(repository.blob(digest).stat().st_size for digest in (*found.files.values(), *pieces))
        return Backup(
            pieces=tuple(pieces),
            serial=found.serial,
            files_sha256=listed,
            files=len(found.files),
            left_out=found.left_out,
            size=sizes,
            lost=(*lost, *found.damaged),
        )
    raise Refusal(
        f"files are deleted from {serverdir}, and not by devpi",
        hint="find out who deletes them, then run deployer check",
        code=ExitCode.VERIFICATION,
    )


def _whole(repository: Repository, backup: Backup, known: set[str]) -> bool:
    try:
        return all(digest in known for digest, _ in repository.files(backup))
    except Damaged:
        return False


@dataclass
class _Files:
    """What became of the files that a database knows; ``files``: digests by path."""

    serial: int
    files: dict[str, str] = field(default_factory=dict)
    missing: list[Stored] = field(default_factory=list)
    damaged: list[Lost] = field(default_factory=list)
    left_out: int = 0


def _files(repository: Repository, serverdir: Path, copied: Path, *, cache: bool, known: set[str]) -> _Files:
    """Make a blob of each file that is none yet."""
    with stored.connect(copied) as connection:
        found, listed = _Files(stored.serial(connection)), list(stored.stored(connection))
    for file in listed:
        if file.mirror and not cache:
            found.left_out += 1
        elif file.sha256 in known:
            found.files[file.path] = file.sha256 or ""
        else:
            _take(repository, serverdir, file, found, known)
    deadline = time.monotonic() + RENAMES
    while found.missing and time.monotonic() < deadline:
        time.sleep(0.1)
        again, found.missing = found.missing, []
        for file in again:
            _take(repository, serverdir, file, found, known)
    return found


def _take(repository: Repository, serverdir: Path, file: Stored, found: _Files, known: set[str]) -> None:
    try:
        digest = repository.keep_file(serverdir / FILES / file.path, file.hashes)
    except (FileNotFoundError, NotADirectoryError):
        found.missing.append(file)
    except (Damaged, PermissionError) as error:
        found.damaged.append(Lost(path=file.path, why=str(error), mirror=file.mirror))
    else:
        found.files[file.path] = digest
        known.add(digest)


def _lost(missing: Sequence[Stored], live: Path, serverdir: Path) -> list[Lost] | None:
    """The missing files that the server still knows: it has lost them. None when any was deleted meanwhile."""
    if not missing:
        return []
    with stored.connect(live) as connection:
        still = {file.path for file in stored.stored(connection)}
    if any(file.path not in still or (serverdir / FILES / file.path).exists() for file in missing):
        return None
    return [Lost(path=file.path, why="missing", mirror=file.mirror) for file in missing]


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
