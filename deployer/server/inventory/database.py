"""The inventory: what is cached and uploaded, since when, from where, and when it was used last.

``<serverdir>/.deployer/inventory.sqlite``. It is a cache of what the disk has: whatever a kill or a full disk keeps
out of it is found again by the comparison with the disk (:mod:`deployer.server.inventory.comparison`), and a damaged
file is begun anew. Requests cost nothing: uses are read from the access log, and written once in a few seconds.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from deployer.protocol import Kind
from deployer.server.inventory.items import Item, projects_of

NAME = "deployer-inventory"
"""Its name as a devpi plugin."""
VERSION = 1
"""Of the tables; a file with another one is begun anew."""
EVERY = 5.0
"""Seconds for which uses may wait in memory."""
MOST_PENDING = 50_000
"""Uses in memory; those beyond are not counted while the disk takes none."""
_TABLES = f"""
    create table items (
        idx text not null, project text not null, kind text not null, path text not null, version text not null,
        size integer not null, disk integer not null, first real not null, last real not null,
        uses integer not null default 0, origin text not null,
        primary key (idx, project, kind, path)
    ) without rowid;
    create unique index by_path on items (idx, path, kind);
    create index by_project on items (project, kind);
    create index by_last on items (last) where kind <> '{Kind.UPLOAD}';
    create table totals (kind text primary key, number integer not null, bytes integer not null) without rowid;
    create trigger added after insert on items begin
        insert into totals values (new.kind, 1, new.disk)
        on conflict do update set number = number + 1, bytes = bytes + new.disk;
    end;
    create trigger removed after delete on items begin
        update totals set number = number - 1, bytes = bytes - old.disk where kind = old.kind;
    end;
    create trigger resized after update of disk on items begin
        update totals set bytes = bytes + new.disk - old.disk where kind = old.kind;
    end;
    pragma user_version = {VERSION};
"""  # noqa: S608 - constants
_KEEP = """
    insert into items (idx, project, kind, path, version, size, disk, first, last, origin)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (idx, path, kind) do update set
        size = excluded.size, disk = excluded.disk, last = max(last, excluded.last),
        origin = case when excluded.origin = '' then origin else excluded.origin end
"""
_USED = "update items set last = max(last, ?), uses = uses + ? where idx = ? and path = ?"
_USED_BY_NAME = """
    update items set last = max(last, ?), uses = uses + 1
    where idx = ? and project = ? and kind = 'file' and substr(path, -length(?)) = ?
"""
_PAGE_USED = "update items set last = max(last, ?) where project = ? and kind = 'page'"


class Inventory:
    """Every method may be called from any thread."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path, self._clock = path, clock
        self._lock = threading.RLock()
        """Of the connection."""
        self._noting = threading.Lock()
        """Of what is pending; never held while anything is written."""
        self._changes: list[tuple[str, tuple[Any, ...]]] = []
        self._uses: dict[tuple[str, str], tuple[int, float]] = {}
        self._pages: dict[str, float] = {}
        self._written = float("-inf")
        self.grown = threading.Event()
        """Set when something was kept."""
        self._connection = self._opened()

    def _opened(self) -> sqlite3.Connection:
        try:
            return self._open()
        except sqlite3.DatabaseError:  # damaged, or of another version
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
            return self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            known = connection.execute("pragma user_version").fetchone()[0]
            if known == 0:
                connection.execute("pragma auto_vacuum = incremental")  # before anything is written
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")  # a power loss costs the last writes, never the file
            if known == 0:
                connection.executescript(f"begin; {_TABLES} commit;")
            elif known != VERSION:
                raise sqlite3.DatabaseError(f"version {known}")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Write what is pending, and close the file."""
        with self._lock:
            self.flush()
            self._connection.close()

    # What happens

    def keep(self, item: Item) -> None:
        """Note something that is on the disk now."""
        found = item.index, item.project, item.kind, item.path, item.version
        self._note(_KEEP, (*found, item.size, item.disk, item.first, item.last, item.origin))
        self.grown.set()

    def drop(self, index: str, path: str, kinds: Collection[Kind] = tuple(Kind)) -> None:
        """Note that something is not on the disk any more."""
        for kind in kinds:
            self._note("delete from items where idx = ? and path = ? and kind = ?", (index, path, kind))

    def drop_index(self, index: str, kinds: Collection[Kind]) -> None:
        """Note that an index has nothing of these kinds any more."""
        for kind in kinds:
            self._note("delete from items where idx = ? and kind = ?", (index, kind))

    def _note(self, statement: str, arguments: tuple[Any, ...]) -> None:
        with self._noting:
            self._changes.append((statement, arguments))

    def used(self, index: str, path: str, at: float) -> None:
        """Note a request for the file at ``path`` below ``index``."""
        with self._noting:
            number, last = self._uses.get((index, path), (0, 0.0))
            if number or len(self._uses) < MOST_PENDING:
                self._uses[index, path] = (number + 1, max(last, at))

    def used_by_name(self, index: str, filename: str, at: float) -> None:
        """Note a request for a file at another address than its own: the canonical view has such."""
        end = f"/{filename}"
        for project in projects_of(filename):
            self._note(_USED_BY_NAME, (at, index, project, end, end))

    def page_used(self, project: str, at: float) -> None:
        """Note a request for a project's page, through whatever index."""
        with self._noting:
            if project in self._pages or len(self._pages) < MOST_PENDING:
                self._pages[project] = max(self._pages.get(project, 0.0), at)

    def tick(self) -> None:
        """Write what is pending, if there are changes, or uses that are old enough."""
        if self._changes or ((self._uses or self._pages) and time.monotonic() - self._written >= EVERY):
            self.flush()

    def flush(self) -> None:
        """Write what is pending. What a full disk does not take is found again by the comparison with the disk."""
        with self._lock:
            with self._noting:
                changes, self._changes = self._changes, []
                uses, self._uses = self._uses, {}
                pages, self._pages = self._pages, {}
            self._written = time.monotonic()
            if changes or uses or pages:
                with contextlib.suppress(sqlite3.OperationalError), self._transaction() as connection:
                    for statement, arguments in changes:
                        connection.execute(statement, arguments)
                    connection.executemany(_USED, [(last, number, *key) for key, (number, last) in uses.items()])
                    connection.executemany(_PAGE_USED, [(last, project) for project, last in pages.items()])

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("begin immediate")
            try:
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("rollback")
                raise

    def shrink(self) -> None:
        """Give unused pages of the file back to the disk."""
        with self._lock, contextlib.suppress(sqlite3.OperationalError):
            self._connection.execute("pragma incremental_vacuum").fetchall()

    def read(self, statement: str, arguments: Collection[Any] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query, with all that has happened until now."""
        with self._lock:
            self.flush()
            return self._connection.execute(statement, tuple(arguments)).fetchall()


def given(config: object) -> Inventory:
    """The inventory of this server. ``config``: devpi's."""
    found: Inventory | None = config.pluginmanager.get_plugin(NAME)  # type: ignore[attr-defined]
    assert found is not None  # noqa: S101 - registered before
    return found
