"""What is done to a server directory before devpi-server may touch it. Standard library only.

Every step can be cut short by a kill at any moment and is done again, or finished, by the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from deployer.server.devpi.installed import KNOWN, installed
from deployer.server.refusal import DAMAGED, TAKEN, UNSAFE, Refusal
from deployer.server.secret_files import PRIVATE, Private, remove, write_private

NODEINFO = ".nodeinfo"
LAYOUTFILE = ".serverversion"
_DATABASES = tuple(known.database for known in KNOWN)

_OF_ADDRESSES = "#?"
"""What ends the path in an address, which is how devpi names its database to SQLite (sqlite.org/uri.html)."""

LOCK_PATIENCE = 2.0
"""Seconds that a server which is just being stopped has to let go of the directory."""
CLEAN_CHECK, UNCLEAN_CHECK = 1.0, 20.0
"""Seconds that the check of the database may delay a start. Most databases need a few milliseconds; one of several
gigabytes is looked at for so long, and ``check`` reads it to the end."""

# The rollback journal of a transaction that was cut short (sqlite.org/fileformat.html, section 3).
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


@contextlib.contextmanager
def locked(serverdir: Path) -> Iterator[Private]:
    """Hold the server directory for the life of this process: devpi itself lets two servers run on one.

    The lock is the kernel's, so it dies with its holder and counts across the containers of one host.
    Raises Refusal.
    """
    private = Private.of(serverdir)
    if any(sign in str(serverdir) for sign in _OF_ADDRESSES):
        raise Refusal(
            f"devpi can't keep its database in {serverdir}: it would make another file for it",
            cure="use a data directory without # and ? in its path",
            code=UNSAFE,
        )
    try:
        serverdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(serverdir)
        if not private.unfinished.exists():
            _check_layout(serverdir)
        private.directory.mkdir(exist_ok=True, mode=0o700)
        for directory in (serverdir, private.directory):
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
        descriptor = os.open(private.lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise Refusal(
            f"{error.filename or serverdir} can't be used: {error.strerror}",
            cure=f"give the data directory to uid {os.getuid()}, and free some space if it is full",
            code=UNSAFE,
        ) from None
    try:
        if not _lock(descriptor):
            raise Refusal(
                f"another server runs on {serverdir}", cure="stop it, or use another data directory", code=TAKEN
            )
        yield private
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)


def _check_ours(serverdir: Path) -> None:
    names = {entry.name for entry in os.scandir(serverdir)} - {"lost+found"}
    if names and not names & {PRIVATE, NODEINFO, LAYOUTFILE, *_DATABASES}:
        raise Refusal(
            f"{serverdir} holds files that are not devpi's", cure="use an empty directory for the data", code=UNSAFE
        )


def repair(serverdir: Path, private: Private, *, seconds: float | None = None) -> None:
    """Make the directory fit for a start: remove litter, roll an interrupted transaction back, check what is there.

    ``seconds`` caps the check of the database; by default the cap depends on how the last run ended.
    Raises Refusal when data is damaged, or of a layout that this server can't run. Nothing is ever made anew.
    """
    _remove_litter(serverdir)
    if private.unfinished.exists():
        return
    database, nodeinfo = serverdir / installed().database, serverdir / NODEINFO
    if not (database.exists() or nodeinfo.exists() or any(serverdir.glob("+files/*"))):
        return
    if not database.exists():
        raise _damaged(database, private, "is missing")
    if uuid_of(serverdir) is None:
        raise _damaged(nodeinfo, private, "can't be read" if nodeinfo.exists() else "is missing")
    _check_database(database, private, seconds)


def _remove_litter(serverdir: Path) -> None:
    """devpi writes ``.nodeinfo`` at each start, by way of a temporary file: on a full disk every try leaves one."""
    whole = (serverdir / NODEINFO).exists()
    for litter in serverdir.glob(f"-{NODEINFO}*"):
        if whole or litter.stat().st_size == 0:
            litter.unlink()


def _check_layout(serverdir: Path) -> None:
    """Raise Refusal for data of another major version than the one that is installed: devpi would not convert it."""
    layout, here = layout_of(serverdir), installed()
    number = (layout or "").partition(".")[0]
    if layout is None or number == here.layout:
        return
    maker = next((known.major for known in KNOWN if known.layout == number), None)
    what = f"data of devpi-server {maker}" if maker else f"data of the layout {layout or 'nothing'}"
    stay = f'stay with version {maker} (server.version: "{maker}"), or ' if maker else ""
    raise Refusal(
        f"{serverdir} holds {what}, and this server is devpi-server {here.major}; nothing was touched",
        cure=f"{stay}export it with the devpi-server that made it, and import it into a new directory",
        code=UNSAFE,
    )


def layout_of(serverdir: Path) -> str | None:
    """The first line of ``.serverversion``; None when there is no such file."""
    try:
        return (serverdir / LAYOUTFILE).read_text(encoding="utf-8", errors="replace").strip()[:40]
    except FileNotFoundError:
        return None


def uuid_of(serverdir: Path) -> str | None:
    """The identity of the data; None when ``.nodeinfo`` is absent or damaged."""
    try:
        return str(json.loads((serverdir / NODEINFO).read_bytes())["uuid"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _check_database(database: Path, private: Private, seconds: float | None) -> None:
    """One read-write open: devpi opens the database read-only first, and then can't roll a journal back (devpi#952).

    After a clean stop only the structure of the pages is looked at, after any other also what indexes say of tables.
    """
    unclean = _is_hot(database.with_name(f"{database.name}-journal")) or private.running.exists()
    thorough = unclean or seconds is not None
    limit = seconds if seconds is not None else UNCLEAN_CHECK if unclean else CLEAN_CHECK
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as connection:
            # Reading is what rolls the journal back. An empty file is a sound database, without a single table.
            found = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
            problem = _problem(connection, "integrity_check" if thorough else "quick_check", limit)
    except sqlite3.DatabaseError as error:
        base = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if base in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(database, private, f"is damaged: {error}") from None
        raise Refusal(
            f"{database} can't be used: {error}", cure="free some space, and give it to this user", code=UNSAFE
        ) from None
    if problem:
        raise _damaged(database, private, f"is damaged: {problem}")
    if not found.issuperset(installed().tables):
        raise _damaged(database, private, "has no data of devpi in it")


def _is_hot(journal: Path) -> bool:
    try:
        with journal.open("rb") as stream:
            return stream.read(8) == _JOURNAL_MAGIC
    except FileNotFoundError:
        return False


def _problem(connection: sqlite3.Connection, pragma: str, seconds: float) -> str:
    """What SQLite finds wrong, in one line; empty when it finds nothing, or nothing in so many seconds."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        answers = [str(row[0]) for row in connection.execute(f"pragma {pragma}(1)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return ""
    finally:
        timer.cancel()
    lines = [line for answer in answers for line in answer.splitlines() if not line.startswith("***")]
    # Cut short, some versions of SQLite tell that as a finding of its own.
    return "" if not lines or lines == ["ok"] or lines == ["interrupted"] else lines[0]


def _damaged(path: Path, private: Private, what: str) -> Refusal:
    backups = sorted(p for p in private.backups.glob("*") if p.is_dir() and p.suffix != ".partial")
    if backups:
        cure = f"the last good backup is {backups[-1]}; nothing was changed"
    else:
        cure = f"there is no backup in {private.backups}: restore one of your own; nothing was changed"
    return Refusal(f"{path} {what}", cure=cure, code=DAMAGED)


def needs_first_boot(serverdir: Path, private: Private) -> bool:
    """Whether there is nothing yet, or only what an interrupted first boot left behind."""
    return private.unfinished.exists() or not (serverdir / NODEINFO).exists()


def start_over(serverdir: Path, private: Private) -> None:
    """Clear what an interrupted first boot left: nobody was ever answered from it."""
    write_private(private.unfinished, "")
    databases = (f"{name}{end}" for name in _DATABASES for end in ("", "-journal"))
    for name in (*databases, NODEINFO, LAYOUTFILE, ".event_serial"):
        (serverdir / name).unlink(missing_ok=True)
    # devpi-init leaves this file out when the directory is not empty, and ours is in it.
    write_private(serverdir / LAYOUTFILE, installed().layout)


def finish_first_boot(private: Private) -> None:
    remove(private.unfinished)


def check(serverdir: Path) -> dict[str, object]:
    """What can be told of a server directory that no server runs on; an interrupted transaction is rolled back.

    The database is read to its end. Raises Refusal as a start would.
    """
    if not serverdir.is_dir():
        raise Refusal(f"{serverdir} is not a directory", cure="name the server directory", code=UNSAFE)
    with locked(serverdir) as private:
        clean = not private.running.exists()
        repair(serverdir, private, seconds=threading.TIMEOUT_MAX)
        database = serverdir / installed().database
        return {
            "serverdir": str(serverdir),
            "initialised": not needs_first_boot(serverdir, private),
            "uuid": uuid_of(serverdir),
            "layout": layout_of(serverdir),
            "database_bytes": database.stat().st_size if database.exists() else 0,
            "clean": clean,
        }
