"""Copy a database in use, without holding its writers up for long.

devpi's databases have a rollback journal: a commit waits while anybody reads, and a copy that SQLite makes begins anew
after each commit. So the file is copied without a lock first, which may mix two states. Then it is compared with the
copy under a writer's lock, in which nothing changes, and what differs is copied again. Comparing is many times as fast
as SQLite's own copy; it is cut into short holds, and the change counter in the header tells whether a commit came
between two of them (sqlite.org/fileformat.html, 1.3; sqlite.org/lockingv3.html). A reader's lock would do as well, but
a writer that waits for it keeps all new readers out; of a writer's lock, only writers wait.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from deployer.protocol import ExitCode, Refusal
from deployer.server.backup.repository import Damaged, Repository
from deployer.server.devpi.stored import connect

PIECE = 64 << 10
"""Bytes of a database that become one blob: most of them are the same in the next backup."""
CHUNK = 64 << 10
"""Bytes that are compared at once: as many as fit a processor's cache."""
HOLD, LONGEST_HOLD = 0.01, 0.02
"""Seconds for which a commit waits: doubled each time that one came in between, up to the longest."""
TRIES = 12
"""Comparisons that a commit may disturb. Then commits wait for one whole comparison, half a second for 1 GB."""
SLICE = 0.002
"""Seconds of comparing without a lock before the disk gets what was written: a few megabytes."""
GAP = 0.03
"""Seconds between two holds: a waiting writer tries again within 25 ms in its first tries (SQLite's busy handler)."""
_HEADER, _COUNTER, _WRITE_VERSION, _WAL = 100, slice(24, 28), 18, 2


class Copy:
    """A copy of the database ``source`` in ``target``. Close it before anything else opens and closes ``source``."""

    def __init__(self, source: Path, target: Path) -> None:
        self.source, self.target = source, target
        target.unlink(missing_ok=True)
        with _explained(source, target):
            self._target = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            # Closing it would end the locks that SQLite holds on the file in this process, so it stays open.
            self._source = os.open(source, os.O_RDONLY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._source)
        os.close(self._target)

    def renew(self) -> None:
        """Bring the copy to the state of this moment. Raises Refusal when it can't be written."""
        with _explained(self.source, self.target), connect(self.source) as live:
            self._renew(live)

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """The same, and no commit happens inside."""
        with contextlib.ExitStack() as stack:
            with _explained(self.source, self.target):
                live = stack.enter_context(connect(self.source))
                if self._is_wal():
                    stack.enter_context(writers_held(self.source))
                self._renew(live)
            yield

    def _renew(self, live: sqlite3.Connection) -> None:
        """Commits wait afterwards until ``live`` is closed, but not those to a write-ahead log."""
        if self._is_wal():
            self._by_sqlite(live)
            return
        self._follow()
        hold = HOLD
        for _ in range(TRIES):
            if self._exactly(live, hold):
                return
            hold = min(2 * hold, LONGEST_HOLD)
        self._exactly(live, float("inf"))

    def _follow(self) -> None:
        """Compare all of it without a lock. The disk gets it in parts: a commit waits for what is queued there."""
        offset = self._compare(0, time.monotonic() + SLICE)
        while offset:
            os.fdatasync(self._target)
            offset = self._compare(offset, time.monotonic() + SLICE)
        os.fdatasync(self._target)

    def check(self) -> None:
        """Raise Refusal when the copied database is damaged."""
        with _explained(self.source, self.target), connect(self.target) as made:
            problem = next(row[0] for row in made.execute("pragma quick_check(1)"))
        if problem != "ok":
            raise _damaged(self.source, problem)

    def _is_wal(self) -> bool:
        header = os.pread(self._source, _HEADER, 0)
        return len(header) == _HEADER and header[_WRITE_VERSION] == _WAL

    def _by_sqlite(self, live: sqlite3.Connection) -> None:
        """Nobody waits for a reader of a database with a write-ahead log."""
        os.ftruncate(self._target, 0)
        with contextlib.closing(sqlite3.connect(self.target, isolation_level=None)) as made:
            made.execute("pragma synchronous = off")  # a copy that is cut short is thrown away
            live.backup(made)
            made.execute("pragma journal_mode = delete")

    def _exactly(self, live: sqlite3.Connection, hold: float) -> bool:
        """Compare all of it in holds of ``hold`` seconds; False when a commit came between two of them.

        After True the last hold goes on until ``live`` is closed.
        """
        offset, counter = 0, b""
        while True:
            live.execute("begin immediate")  # takes the lock, and ends a hot journal
            found = os.pread(self._source, _HEADER, 0)[_COUNTER]
            changed = bool(offset) and found != counter
            if not changed:
                counter = found
                offset = self._compare(offset, time.monotonic() + hold)
                if not offset:
                    return True
            live.execute("rollback")
            if changed:
                return False
            time.sleep(GAP)

    def _compare(self, offset: int, until: float) -> int:
        """Copy what differs from ``offset`` on; where it stopped at the time ``until``, 0 at the end."""
        while chunk := os.pread(self._source, CHUNK, offset):
            if chunk != os.pread(self._target, len(chunk), offset):
                os.pwrite(self._target, chunk, offset)
            offset += len(chunk)
            if time.monotonic() > until:
                return offset
        os.ftruncate(self._target, offset)
        return 0


def copy(source: Path, target: Path) -> None:
    """Copy the database as of one moment. Raises Refusal when it is damaged."""
    with Copy(source, target) as made:
        made.renew()
        made.check()


@contextlib.contextmanager
def _explained(source: Path, target: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, OSError) as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(source, str(error)) from None
        raise Refusal(
            f"can't copy {source} to {target}: {error}",
            hint="free some space, and run it as the owner of both; nothing was changed",
            code=ExitCode.REFUSED,
        ) from None


def _damaged(source: Path, problem: str) -> Refusal:
    return Refusal(
        f"{source} is damaged: {problem}",
        hint="restore a backup: deployer backup restore --replace",
        code=ExitCode.VERIFICATION,
    )


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
