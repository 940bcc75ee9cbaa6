"""Copy a database in use: SQLite's online backup in short steps, so that no writer waits long."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployer.protocol import ExitCode, Refusal
from deployer.server.backup.repository import Damaged, Repository
from deployer.server.devpi.stored import connect

PIECE = 64 << 10
"""Bytes of a database that become one blob: most of them are the same in the next backup."""
STEP = 1024
"""Pages that are copied while writers wait: some milliseconds. Doubled each time that a commit restarts the copy."""


class _Restarted(Exception):
    """A commit made SQLite begin the copy again."""


def copy(source: Path, target: Path) -> None:
    """Copy the database as of one moment. Raises Refusal when it is damaged."""
    target.unlink(missing_ok=True)
    try:
        with connect(source) as live, contextlib.closing(sqlite3.connect(target, isolation_level=None)) as made:
            made.execute("pragma synchronous = off")  # a copy that is cut short is thrown away
            step = STEP
            while not _copied(live, made, step):
                step *= 2
            problem = next(row[0] for row in made.execute("pragma quick_check(1)"))
    except sqlite3.DatabaseError as error:
        problem = str(error)
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise Refusal(
                f"can't copy {source} to {target}: {problem}",
                hint="free some space, and run it as the owner of both; nothing was changed",
                code=ExitCode.REFUSED,
            ) from None
    if problem != "ok":
        raise Refusal(
            f"{source} is damaged: {problem}",
            hint="restore a backup: deployer backup restore --replace",
            code=ExitCode.VERIFICATION,
        )


def _copied(live: sqlite3.Connection, made: sqlite3.Connection, step: int) -> bool:
    """Copy in steps of so many pages; False when a commit came in between."""
    left = 1 << 62

    def progress(_status: int, remaining: int, _total: int) -> None:
        nonlocal left
        if remaining > left:
            raise _Restarted
        left = remaining

    try:
        live.backup(made, pages=step, progress=progress, sleep=0.02)
    except _Restarted:
        return False
    return True


@contextlib.contextmanager
def writers_held(source: Path) -> Iterator[None]:
    """Let no commit happen; readers go on, and writers wait."""
    with connect(source) as connection:
        connection.execute("begin immediate")
        try:
            yield
        finally:
            connection.execute("rollback")


def keep(repository: Repository, path: Path) -> list[str]:
    """Take a copied database in, in pieces; their digests."""
    pieces = []
    with path.open("rb") as stream:
        while piece := stream.read(PIECE):
            pieces.append(repository.keep_bytes(piece))
    return pieces


def put_together(repository: Repository, pieces: Sequence[str], target: Path) -> None:
    """Write a database from its pieces, and check it. Raises Damaged."""
    with target.open("xb") as stream:
        for piece in pieces:
            stream.write(repository.read(piece))
    with connect(target) as connection:
        problem = next(row[0] for row in connection.execute("pragma integrity_check(1)"))
    if problem != "ok":
        raise Damaged(f"the database is damaged: {problem}")
