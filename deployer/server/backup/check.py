"""Check the data of a server that may run: the database, every file against its hash, and what nobody knows.

The database is copied as a backup does, and its copy is checked, so that no writer waits. Files are read no faster than
a given rate. A repair only renames: what is wrong is set aside, and never deleted.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from deployer.protocol import ExitCode, Finding, Refusal, parsed
from deployer.server.backup import database, served
from deployer.server.backup.repository import CHUNK, Repository
from deployer.server.boot.prepare import uuid_of
from deployer.server.devpi import stored
from deployer.server.devpi.stored import FILES, Stored
from deployer.server.mirrors.store import is_whole
from deployer.server.pages.store import PAGES, STAMP
from deployer.server.secret_files import Private

YOUNG = 3600.0
"""Seconds in which a file may belong to a request or a commit under way."""
SETTLED = 5.0
"""Seconds in which a server drops the pages that a commit has changed; it notes that once a second."""
_KEPT_FINDINGS = 1000


@dataclass
class _Pace:
    """Bytes that were read; ``rate``: bytes a second at most, 0 for no limit."""

    rate: int
    read: int = 0
    start: float = field(default_factory=time.monotonic)

    def passed(self, size: int) -> None:
        self.read += size
        if self.rate:
            time.sleep(max(0.0, self.start + self.read / self.rate - time.monotonic()))


def check(serverdir: Path, *, repair: bool, rate: int, repository: Repository | None = None) -> dict[str, object]:
    """Check the data, and note the result in the journal. ``rate``: bytes a second, 0 for no limit.

    ``repair``: set aside damaged files of mirrors, which are fetched again, damaged cached pages, and files that nobody
    knows; ``repository``: backups from which lost uploads are taken. Raises Refusal when the database is damaged.
    """
    if uuid_of(serverdir) is None or not stored.database(serverdir).exists():
        raise Refusal(f"{serverdir} holds no data of devpi", hint="name the server directory", code=ExitCode.REFUSED)
    private, pace = Private.of(serverdir), _Pace(rate)
    private.directory.mkdir(exist_ok=True, mode=0o700)
    copied = private.directory / "check.sqlite"
    try:
        database.copy(stored.database(serverdir), copied)
        with stored.connect(copied) as connection:
            problem = next(row[0] for row in connection.execute("pragma integrity_check(1)"))
            if problem != "ok":
                raise Refusal(
                    f"{stored.database(serverdir)} is damaged: {problem}",
                    hint="restore a backup: deployer backup restore --replace",
                    code=ExitCode.VERIFICATION,
                )
            files = {file.path: file for file in stored.stored(connection)}
            said = served.known(files, stored.types(connection))
            facts: dict[str, object] = {**stored.sizes(copied), "serial": stored.serial(connection)}
    finally:
        copied.unlink(missing_ok=True)
    findings = [
        *_of_files(serverdir, files, pace),
        *_of_orphans(serverdir, files),
        *_of_pages(private.upstream),
        *_of_served(serverdir, private, said),
    ]
    if repair:
        aside = _unused(private.directory / "set-aside" / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        findings = [_repaired(serverdir, aside, one, files.get(one.path), repository) for one in findings]
    report = {"files": len(files), "bytes": pace.read, "database": facts, "findings": [asdict(one) for one in findings]}
    _note(private, report)
    return report


def _of_files(serverdir: Path, files: Mapping[str, Stored], pace: _Pace) -> Iterator[Finding]:
    """Files that the database knows, and that are gone or damaged."""
    missing = []
    for file in files.values():
        try:
            why = _wrong(serverdir / FILES / file.path, file, pace)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(file)
            continue
        if why:
            yield Finding(kind="damaged", path=file.path, why=why, mirror=file.mirror)
    if missing:
        with stored.connect(stored.database(serverdir)) as connection:
            still = {file.path for file in stored.stored(connection)}
        for file in missing:
            if file.path in still and not (serverdir / FILES / file.path).exists():
                yield Finding(kind="missing", path=file.path, why="missing", mirror=file.mirror)


def _wrong(path: Path, file: Stored, pace: _Pace) -> str:
    """What is wrong with a file; empty when nothing is."""
    hashes = {kind: hashlib.new(kind, usedforsecurity=False) for kind in file.hashes}
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as reader:
            while chunk := reader.read(CHUNK):
                for one in hashes.values():
                    one.update(chunk)
                pace.passed(len(chunk))
    except FileNotFoundError:
        raise
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return next((f"{kind} mismatch" for kind, one in hashes.items() if one.hexdigest() != file.hashes[kind]), "")


def _of_orphans(serverdir: Path, files: Mapping[str, Stored]) -> Iterator[Finding]:
    """Files that the database does not know, and that are too old to be of a request under way."""
    root, found = serverdir / FILES, []
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            relative = path.relative_to(root).as_posix()
            with suppress(FileNotFoundError):
                if relative not in files and time.time() - path.lstat().st_mtime > YOUNG:
                    found.append(relative)
    if found:
        with stored.connect(stored.database(serverdir)) as connection:
            since = {file.path for file in stored.stored(connection)}
        yield from (Finding(kind="orphan", path=path, why="not in the database") for path in found if path not in since)


def _of_pages(directory: Path) -> Iterator[Finding]:
    """Cached pages of upstreams that are damaged."""
    for path in sorted(directory.glob("*/*/[!.]*")):
        with suppress(FileNotFoundError):
            if path.is_file() and not is_whole(path.read_bytes()):
                yield Finding(
                    kind="page", path=path.relative_to(directory).as_posix(), why="checksum mismatch", mirror=True
                )


def _of_served(serverdir: Path, private: Private, said: served.Known) -> Iterator[Finding]:
    """Pages that are served, and do not say what the database says."""
    root = private.directory / PAGES
    suspects = [page for page in served.pages(root) if _why(page, said)]
    if not suspects:
        return
    # The database goes on. A page that is wrong stays wrong after what was committed until now has dropped its pages.
    before = {page: _inode(page) for page in suspects}
    with stored.connect(stored.database(serverdir)) as connection:
        now = {file.path: file for file in stored.stored(connection)}
        said, serial = served.known(now, stored.types(connection)), stored.serial(connection)
    if not _dropped(private, serial):
        return  # no server runs: the next one compares them before it serves
    for page in suspects:
        if (why := _why(page, said)) and _inode(page) == before[page]:
            yield Finding(kind="served", path=page.relative_to(root).as_posix(), why=why)


def _why(page: Path, said: served.Known) -> str:
    try:
        return served.wrong(page, said)
    except OSError:  # it was dropped meanwhile
        return ""


def _inode(page: Path) -> int:
    try:
        return page.stat().st_ino
    except FileNotFoundError:
        return 0


def _dropped(private: Private, serial: int) -> bool:
    """Wait until the server has dropped the pages of all commits up to ``serial``; False when it does not."""
    deadline = time.monotonic() + SETTLED
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError, KeyError, TypeError):
            if int(parsed((private.directory / STAMP).read_bytes())["serial"]) >= serial:
                return True
        time.sleep(0.1)
    return False


def _repaired(
    serverdir: Path, aside: Path, finding: Finding, file: Stored | None, repository: Repository | None
) -> Finding:
    """Repair what can be repaired; the finding with what was done."""
    private = Private.of(serverdir)
    where = {"page": private.upstream, "served": private.directory / PAGES}.get(finding.kind, serverdir / FILES)
    source = where / finding.path
    if finding.kind == "served":
        _set_aside(source, aside / PAGES / finding.path)
        return Finding(**asdict(finding) | {"done": "set aside; the server makes it anew"})
    if finding.kind in ("damaged", "missing") and not finding.mirror:
        done = _taken_back(serverdir, source, aside / finding.path, file, repository)
        return Finding(**asdict(finding) | {"done": done})
    if finding.kind == "missing":
        return Finding(**asdict(finding) | {"done": "the next client has it fetched"})
    _set_aside(source, aside / finding.path)
    done = "set aside" if finding.kind == "orphan" else "set aside; the next client has it fetched"
    return Finding(**asdict(finding) | {"done": done})


def _unused(directory: Path) -> Path:
    """``directory``, with a number if it is there: two repairs may begin in the same second."""
    numbered = (directory.with_name(f"{directory.name}-{number}") for number in itertools.count(2))
    return next(path for path in itertools.chain([directory], numbered) if not path.exists())


def _set_aside(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileNotFoundError):
        source.rename(target)


def _taken_back(serverdir: Path, path: Path, aside: Path, file: Stored | None, repository: Repository | None) -> str:
    """Take a lost upload from the backups; empty when they do not have it."""
    digest = file.sha256 if file else None
    if repository is None or digest is None or not repository.blob(digest).is_file():
        return ""
    temporary = Private.of(serverdir).directory / "check.file"
    try:
        shutil.copyfile(repository.blob(digest), temporary)
        with temporary.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                return ""
            os.fsync(stream.fileno())
        _set_aside(path, aside)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return "taken from the backups"


def _note(private: Private, report: Mapping[str, object]) -> None:
    """Add the result to the journal: one line of JSON for each check."""
    findings = report["findings"]
    assert isinstance(findings, list)  # noqa: S101 - it was just made
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **report, "findings": findings[:_KEPT_FINDINGS]}
    descriptor = os.open(private.directory / "checks.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "a", encoding="utf-8") as journal:
        journal.write(json.dumps(line) + "\n")
