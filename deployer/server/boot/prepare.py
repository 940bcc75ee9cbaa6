"""Checks and repairs of a server directory before devpi-server opens it. Standard library only.

A kill may interrupt any step; the next start repeats or finishes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from deployer.protocol import PRIVATE, ExitCode, Refusal, UpgradePath, parsed
from deployer.server.devpi.installed import KNOWN, installed
from deployer.server.secret_files import Private, remove, write_private

NODEINFO = ".nodeinfo"
LAYOUTFILE = ".serverversion"
_DATABASES = tuple(known.database for known in KNOWN)

_END_OF_PATH = "#?"
"""Characters that end the path of a URI; devpi gives SQLite its database as one (sqlite.org/uri.html)."""

LOCK_PATIENCE = 2.0
"""Seconds that a stopping server has to release the directory."""
CLEAN_CHECK, UNCLEAN_CHECK = 1.0, 20.0
"""Seconds that the check of the database may delay a start. Most databases take a few milliseconds; for one of several
gigabytes the check is cut off. ``check`` has no limit."""

# The rollback journal of a transaction that was cut short (sqlite.org/fileformat.html, section 3).
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")


@contextlib.contextmanager
def locked(
    serverdir: Path, held: int | None = None, *, any_layout: bool = False, patience: float = LOCK_PATIENCE
) -> Iterator[Private]:
    """Lock the server directory: devpi itself would let two servers run on one.

    ``held``: the descriptor of a lock that this process has already. ``any_layout``: also data of another major
    version. ``patience``: seconds that a stopping server has. The kernel's lock ends with its process, and holds across
    the containers of one host. Raises Refusal.
    """
    private = Private.of(serverdir)
    if any(sign in str(serverdir) for sign in _END_OF_PATH):
        raise Refusal(
            f"devpi can't use {serverdir}: with # or ? in the path it would open another database",
            hint="choose a data directory without # and ? in its path",
            code=ExitCode.REFUSED,
        )
    try:
        serverdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_ours(serverdir)
        if not any_layout:
            _check_switched(serverdir)
            if not private.unfinished.exists():
                _check_layout(serverdir)
        private.directory.mkdir(exist_ok=True, mode=0o700)
        for directory in (serverdir, private.directory):
            if directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
        descriptor = os.open(private.lock, os.O_RDWR | os.O_CREAT, 0o600) if held is None else held
    except OSError as error:
        raise Refusal(
            f"can't use {error.filename or serverdir}: {error.strerror}",
            hint=f"make uid {os.getuid()} the owner of the data directory, and free some space if the disk is full",
            code=ExitCode.REFUSED,
        ) from None
    try:
        if held is None and not _lock(descriptor, patience):
            raise Refusal(
                f"another server runs on {serverdir}",
                hint="stop it, or choose another data directory",
                code=ExitCode.CONFLICT,
            )
        os.ftruncate(descriptor, 0)  # the process id of an earlier server
        yield replace(private, lock_held=descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
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
            f"{serverdir} holds files that are not devpi's",
            hint="choose an empty directory for the data",
            code=ExitCode.REFUSED,
        )


def repair(serverdir: Path, private: Private, *, seconds: float | None = None) -> None:
    """Remove leftover temporary files, roll back an interrupted transaction, and check the database.

    ``seconds``: limit of the check; the default depends on how the last run ended. Raises Refusal when data is damaged
    or missing. Nothing is ever created.
    """
    _remove_litter(serverdir)
    if private.unfinished.exists():
        return
    database, nodeinfo = serverdir / installed().database, serverdir / NODEINFO
    if not (database.exists() or nodeinfo.exists() or any(serverdir.glob("+files/*"))):
        return
    if not database.exists():
        raise _damaged(database, "is missing")
    if uuid_of(serverdir) is None:
        raise _damaged(nodeinfo, "can't be read" if nodeinfo.exists() else "is missing")
    _check_database(database, private, seconds)


def _remove_litter(serverdir: Path) -> None:
    """devpi writes ``.nodeinfo`` by a temporary file at each start; on a full disk each attempt leaves one."""
    whole = (serverdir / NODEINFO).exists()
    for litter in serverdir.glob(f"-{NODEINFO}*"):
        if whole or litter.stat().st_size == 0:
            litter.unlink()


def _check_switched(serverdir: Path) -> None:
    if (serverdir / UpgradePath.SWITCH).exists():
        raise Refusal(
            f"an upgrade or a rollback of {serverdir} was interrupted",
            hint="run it again: deployer upgrade, or deployer rollback",
            code=ExitCode.CONFLICT,
        )


def _check_layout(serverdir: Path) -> None:
    """Raise Refusal for data of another major version than the installed one: devpi would not convert it."""
    layout, here = layout_of(serverdir), installed()
    number = (layout or "").partition(".")[0]
    if layout is None or number == here.layout:
        return
    maker = next((known.major for known in KNOWN if known.layout == number), None)
    what = f"data of devpi-server {maker}" if maker else f"data of the layout {layout or 'nothing'}"
    stay = f'keep version {maker} (server.version: "{maker}"), or ' if maker else ""
    way = f"run deployer {'upgrade' if maker and maker < here.major else 'rollback'}"
    raise Refusal(
        f"{serverdir} holds {what}, and this server is devpi-server {here.major}; nothing was changed",
        hint=f"{stay}{way}",
        code=ExitCode.REFUSED,
    )


def layout_of(serverdir: Path) -> str | None:
    """The first line of ``.serverversion``; None when there is no such file."""
    try:
        return (serverdir / LAYOUTFILE).read_text(encoding="utf-8", errors="replace").strip()[:40]
    except FileNotFoundError:
        return None


def uuid_of(serverdir: Path) -> str | None:
    """The uuid of the data; None when ``.nodeinfo`` is absent or damaged."""
    try:
        return str(parsed((serverdir / NODEINFO).read_bytes())["uuid"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _check_database(database: Path, private: Private, seconds: float | None) -> None:
    """Open the database read-write once: devpi opens it read-only first, and then can't roll back (devpi#952).

    After a clean stop SQLite's quick check runs, else its integrity check, which compares tables with indexes, too.
    """
    unclean = _is_hot(database.with_name(f"{database.name}-journal")) or private.running.exists()
    thorough = unclean or seconds is not None
    limit = seconds if seconds is not None else UNCLEAN_CHECK if unclean else CLEAN_CHECK
    try:
        with contextlib.closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as connection:
            # Reading rolls the journal back. An empty file is a valid database without tables.
            found = {row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")}
            problem = _problem(connection, "integrity_check" if thorough else "quick_check", limit)
    except sqlite3.DatabaseError as error:
        base = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if base in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(database, f"is damaged: {error}") from None
        raise Refusal(
            f"can't use {database}: {error}",
            hint="free some space, and make this user its owner",
            code=ExitCode.REFUSED,
        ) from None
    if problem:
        raise _damaged(database, f"is damaged: {problem}")
    if not found.issuperset(installed().tables):
        raise _damaged(database, "holds no data of devpi")


def _is_hot(journal: Path) -> bool:
    try:
        with journal.open("rb") as stream:
            return stream.read(8) == _JOURNAL_MAGIC
    except FileNotFoundError:
        return False


def _problem(connection: sqlite3.Connection, pragma: str, seconds: float) -> str:
    """The first problem that SQLite finds; empty when it finds none within ``seconds``."""
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
    # Some versions of SQLite report an interrupted check as a problem.
    return "" if not lines or lines == ["ok"] or lines == ["interrupted"] else lines[0]


def _damaged(path: Path, what: str) -> Refusal:
    hint = "restore a backup of the data directory; nothing was changed"
    return Refusal(f"{path} {what}", hint=hint, code=ExitCode.VERIFICATION)


def needs_first_boot(serverdir: Path, private: Private) -> bool:
    """Whether there is no data yet, or only the files of an interrupted first boot."""
    return private.unfinished.exists() or not (serverdir / NODEINFO).exists()


def require_mark(serverdir: Path, private: Private) -> None:
    """Refuse to begin an index where ``deployer up`` left no mark: the disk of the data may not be mounted."""
    if not private.unfinished.exists():
        raise Refusal(
            f"there is no data in {serverdir}",
            hint="mount its disk, or restore it there; to begin with an empty index: deployer up --new-data",
            code=ExitCode.CONFLICT,
        )


def start_over(serverdir: Path, private: Private) -> None:
    """Remove the files of an interrupted first boot: no client ever got a response from them."""
    write_private(private.unfinished, "")
    databases = (f"{name}{end}" for name in _DATABASES for end in ("", "-journal"))
    for name in (*databases, NODEINFO, LAYOUTFILE, ".event_serial"):
        (serverdir / name).unlink(missing_ok=True)
    # devpi-init does not write this file when the directory is not empty, and it holds deployer's.
    write_private(serverdir / LAYOUTFILE, installed().layout)


def finish_first_boot(private: Private) -> None:
    remove(private.unfinished)


def check(serverdir: Path) -> dict[str, object]:
    """Check a server directory on which no server runs; an interrupted transaction is rolled back.

    The whole database is read. Raises Refusal as a start would.
    """
    if not serverdir.is_dir():
        raise Refusal(f"{serverdir} is not a directory", hint="name the server directory", code=ExitCode.REFUSED)
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
