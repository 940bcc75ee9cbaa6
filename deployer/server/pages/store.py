"""The page store: project pages as files, which nginx (or the middleware, without nginx) sends instead of devpi.

What a reverse proxy may rely on::

    <serverdir>/.deployer/pages/<user>/<index>/<project>/json      application/vnd.pypi.simple.v1+json
    <serverdir>/.deployer/pages/<user>/<index>/<project>/json.gz   the same, compressed
    <serverdir>/.deployer/pages/<user>/<index>/<project>/html      text/html
    <serverdir>/.deployer/pages/<user>/<index>/<project>/html.gz   the same, compressed

- The files answer ``GET`` and ``HEAD /<user>/<index>/+simple/<project>/`` without a query, with a normalised name.
- A file exists exactly while it may be sent. Without a file the request goes to the server, which answers it and
  writes the file if possible. Files appear by rename, and disappear by rename or removal: send any file that opens.
- ``requests.negotiate`` chooses the file: ``json`` for a client that prefers it, ``html`` only for installers (devpi's
  ``INSTALLER_USER_AGENT``), because browsers get another page, with a form. devpi has two kinds of answer, so a client
  that accepts only ``application/vnd.pypi.simple.v1+html`` gets no file.
- A request with the header ``X-Devpi-Absolute-Urls`` goes to the server.
- A file's mtime is no date: it is made of the content, so that mtime and size make an ETag (:mod:`.tags`).
- Directories whose names begin with a dot, and the sibling ``stale``, must not be sent. Files are 0600, in
  directories that are 0700.
- Pages of an index that not everybody may read are below ``.read/`` instead: send them to its readers only.

Call ``forget(project)`` or ``forget_all()`` after a change of pages that is not in devpi's database.
"""

from __future__ import annotations

import contextlib
import gzip
import heapq
import os
import re
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.server.guard.readers import READ, Readers
from deployer.server.pages.changelog import Changelog, Everything
from deployer.server.pages.checkpoint import Checkpoint
from deployer.server.pages.tags import moment
from deployer.server.secret_files import write_private

PAGES, STALE, STAMP = "pages", "stale", "pages.stamp"
LIMIT_BYTES = 512 * 2**20
LARGEST = 64 * 2**20
"""Bytes of the largest page that is stored."""
_READ = f".{READ}"
NEVER = float("inf")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_BLOCK = 4096
_GZIP_LEVEL = 1  # of 10 MB: 25 ms instead of 43, for 15 % more bytes
_CHANGES_KEPT = 20_000
_SWEEP = 60.0  # seconds
_CHECKPOINT_EVERY = 1.0
"""Seconds between two checkpoints. A start reads the commits since the last one again."""

Key = tuple[str, str, str]  # user, index, project


@dataclass(frozen=True)
class View:
    """The state of devpi's database that a response shows.

    ``first``: the serial at which its transaction began. ``own``: the serial that the request committed itself, None
    when it committed nothing. ``mark``: the number of calls of ``forget`` and ``forget_all`` before it began.
    """

    first: int
    own: int | None
    mark: int


@dataclass
class _Entry:
    due: float  # becomes stale then: seconds since the epoch
    sizes: dict[str, int] = field(default_factory=dict)
    level: str = ""
    """The directory within that of the pages; empty for pages that everybody may read."""

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


class PageStore:
    """The stored pages. Every method may be called from any thread."""

    def __init__(
        self,
        directory: Path,
        changelog: Changelog,
        *,
        settings: dict[str, Any],
        limit: int = LIMIT_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``directory``: deployer's own directory. ``settings``: what pages depend on besides the data."""
        self._pages, self._stale = directory / PAGES, directory / STALE
        self._trash = directory / ".trash"
        self._changelog = changelog
        self._limit = limit
        self._clock = clock
        self._lock = threading.RLock()
        self._fresh: OrderedDict[Key, _Entry] = OrderedDict()
        self._old: OrderedDict[Key, _Entry] = OrderedDict()
        self._changed: dict[str, tuple[int, int]] = {}  # by project: the last two serials that touched it
        self._floor = -1  # any serial up to this one may have touched any page
        self._mark = 0
        self._marked: dict[str, int] = {}
        self._all_marked = 0
        self._bytes = self._thrown = 0
        self._dues: list[tuple[float, Key]] = []
        self._wake = threading.Condition(self._lock)
        self._readers: Readers | None = None
        self._checkpoint = Checkpoint(directory / STAMP, changelog, settings)
        self.seen = changelog.serial
        """The serial up to which commits are taken into account."""
        self._begin()

    # At the start

    def _begin(self) -> None:
        shutil.rmtree(self._trash, ignore_errors=True)
        self._trash.mkdir(mode=0o700)
        known = self._checkpoint.read()
        for directory in (self._pages, self._stale):
            if known is None:
                self._throw_away(directory)
            directory.mkdir(mode=0o700, exist_ok=True)
        self._take_stock(self._pages, self._fresh)
        self._take_stock(self._stale, self._old)
        if known is not None:
            self._apply(known, self.seen)
        self._floor = self.seen
        self._write_checkpoint(self.seen)

    def _write_checkpoint(self, serial: int) -> None:
        self._checkpoint.write(serial)
        self._checkpoint_serial = serial
        self._checkpoint_at = time.monotonic()

    def _take_stock(self, root: Path, into: OrderedDict[Key, _Entry]) -> None:
        found = [*root.glob("[!.]*/*/*"), *root.glob(f"{_READ}/*/*/*")]
        for directory in sorted(found, key=lambda path: path.stat().st_mtime):
            key = (directory.parts[-3], directory.parts[-2], directory.name)
            level = _READ if directory.parts[-4] == _READ else ""
            # The time at which a page becomes stale is the directory's mtime; 0 means never.
            due = directory.stat().st_mtime or NEVER
            sizes = {entry.name: entry.stat().st_size for entry in os.scandir(directory)}
            for name in [name for name in sizes if name.startswith(".")]:
                (directory / name).unlink()
                del sizes[name]
            into[key] = _Entry(due, sizes, level)
            self._bytes += into[key].bytes
            if into is self._fresh:
                heapq.heappush(self._dues, (due, key))

    # Reading

    def read(self, key: Key, name: str) -> bytes | None:
        """The file ``name`` of a fresh page; None when there is none."""
        with self._lock:
            entry = self._fresh.get(key)
            if entry is None or name not in entry.sizes or entry.due <= self._clock():
                return None
            place = self._path(self._pages, key, entry)
        return _read(place / name)

    def read_stale(self, key: Key, name: str) -> bytes | None:
        """The file ``name`` of a stale page; None when there is none."""
        with self._lock:
            self._expire()
            entry = self._old.get(key)
            if entry is None or name not in entry.sizes:
                return None
            place = self._path(self._stale, key, entry)
        return _read(place / name)

    # Validity

    def obey(self, readers: Readers) -> None:
        """Take over who may read each index, and drop the pages that are where other clients read.

        Before the first call everybody reads all.
        """
        with self._lock:
            self._readers = readers
            for root, known in self._both():
                for key in [key for key, entry in known.items() if entry.level != self._level(key)]:
                    self._drop_key(root, known, key)

    @property
    def _is_unsure(self) -> bool:
        """Whether an index may have got other readers since :meth:`obey`."""
        return self._readers is not None and self._readers.at < self._floor

    def _level(self, key: Key) -> str:
        protected = self._readers is not None and f"{key[0]}/{key[1]}" in self._readers.protected
        return _READ if protected else ""

    @property
    def configured(self) -> int:
        """The serial of the last known change of a user or an index, or a later one."""
        return self._floor

    @property
    def disk(self) -> int:
        """About the bytes that all pages take of the disk: a page is a directory and two or more files."""
        return self._bytes + 3 * _BLOCK * (len(self._fresh) + len(self._old))

    @property
    def mark(self) -> int:
        """The ``mark`` of a :class:`View`, to be read before a request begins."""
        with self._lock:
            return self._mark

    def catch_up(self, serial: int | None = None) -> None:
        """Remove the pages that commits have changed; return at once if ``serial`` was taken into account before."""
        if serial is not None and serial <= self.seen:
            return
        with self._lock:
            current = self._changelog.serial
            if current == self.seen:
                return
            self._apply(self.seen, current)
            self.seen = current
            self._wake.notify_all()

    def _apply(self, seen: int, current: int) -> None:
        for serial, touched in self._changelog.since(seen, current):
            for what in touched:
                if isinstance(what, Everything):
                    self._floor = serial
                    self._changed.clear()
                    self._drop_all()
                else:
                    before = self._changed.get(what, (self._floor, self._floor))
                    self._changed[what] = (before[1], serial)
                    self._drop(what)
        if len(self._changed) > _CHANGES_KEPT:
            self._floor = max(self._floor, current)
            self._changed.clear()

    def is_current(self, project: str, view: View) -> bool:
        """Whether ``project`` has not changed since a request saw ``view`` (docs/explanation/server.md)."""
        with self._lock:
            self.catch_up()
            return self._is_current(project, view)

    def _is_current(self, project: str, view: View) -> bool:
        """The same as far as is known: a commit that is not will drop the project's pages when it is."""
        before, last = self._changed.get(project, (self._floor, self._floor))
        if view.own is not None and last == view.own:
            last = before
        marked = max(self._marked.get(project, 0), self._all_marked)
        return last <= view.first and marked <= view.mark

    def last_change(self, project: str) -> int:
        """The serial of the last commit, of all that are known, that touched ``project``; or a later one."""
        with self._lock:
            return self._changed.get(project, (self._floor, self._floor))[1]

    def forget(self, project: str) -> None:
        """Drop every page of a project (normalised name), and refuse those of requests that run now."""
        with self._lock:
            self._mark += 1
            self._marked[project] = self._mark
            self._drop(project)

    def forget_all(self) -> None:
        """Drop every page, and refuse those of requests that run now."""
        with self._lock:
            self._mark += 1
            self._all_marked = self._mark
            self._marked.clear()
            self._drop_all()

    # Writing

    def put(self, key: Key, name: str, body: bytes, packed: bytes, *, due: float, view: View) -> bool:
        """Store a page that becomes stale at ``due``; False when its project changed since ``view``, or on an error.

        ``packed``: of :func:`pack`.
        """
        if len(body) > LARGEST or not all(_PLAIN.fullmatch(part) for part in key):
            return False
        with self._lock:
            if not self._is_current(key[2], view) or self._is_unsure:
                return False
            entry = self._fresh.pop(key, None) or _Entry(due, level=self._level(key))
            directory = self._path(self._pages, key, entry)
            try:
                if not entry.sizes:
                    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                for file, content in ((f"{name}.gz", packed), (name, body)):
                    write_private(directory / file, content, durable=False, modified=moment(content))
                    self._bytes += len(content) - entry.sizes.get(file, 0)
                    entry.sizes[file] = len(content)
                self._fresh[key] = entry
                self._drop_key(self._stale, self._old, key)
                self._set_due(key, entry, due)
                self._make_room()
            except OSError:  # a full disk: the client gets the page anyway
                self._fresh.setdefault(key, entry)
                self._drop_key(self._pages, self._fresh, key)
                return False
            return True

    def extend(self, key: Key, seconds: float) -> None:
        """Make a stale page fresh again for ``seconds``, because the upstream sent no new one."""
        with self._lock:
            entry = self._old.pop(key, None)
            if entry is None:
                return
            target = self._path(self._pages, key, entry)
            self._drop_key(self._pages, self._fresh, key)
            with contextlib.suppress(OSError):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path(self._stale, key, entry).rename(target)
                self._fresh[key] = entry
                self._set_due(key, entry, self._clock() + seconds)

    def _set_due(self, key: Key, entry: _Entry, due: float) -> None:
        entry.due = due
        moment = 0.0 if due == NEVER else due
        os.utime(self._path(self._pages, key, entry), (moment, moment))
        if due != NEVER:
            heapq.heappush(self._dues, (due, key))
            if self._dues[0] == (due, key):
                self._wake.notify_all()

    def _make_room(self) -> None:
        while self._bytes > self._limit:
            root, known = (self._stale, self._old) if self._old else (self._pages, self._fresh)
            self._drop_key(root, known, next(iter(known)))

    # Removal

    def watch(self) -> None:
        """Make pages stale when they are due, and delete dropped pages; runs until the process ends."""
        emptied = 0
        while True:
            if emptied != self._thrown:
                emptied = self._thrown
                for thrown in self._trash.iterdir():
                    shutil.rmtree(thrown, ignore_errors=True)
            with self._lock:
                self._expire()
                wait = self._dues[0][0] - self._clock() if self._dues else _SWEEP
                if self._checkpoint_serial < self.seen:
                    wait = min(wait, _CHECKPOINT_EVERY)
                self._wake.wait(min(max(wait, 0.01), _SWEEP))
            self._checkpoint_if_due()

    def finish(self) -> None:
        """Write the checkpoint before an orderly stop, so that the next start keeps every page."""
        with self._lock:
            if self._checkpoint_serial < self.seen:
                self._write_checkpoint(self.seen)

    def _checkpoint_if_due(self) -> None:
        with self._lock:
            if self._checkpoint_serial < self.seen and time.monotonic() - self._checkpoint_at >= _CHECKPOINT_EVERY:
                self._write_checkpoint(self.seen)

    def _expire(self) -> None:
        now = self._clock()
        while self._dues and self._dues[0][0] <= now:
            _, key = heapq.heappop(self._dues)
            entry = self._fresh.get(key)
            if entry is None or entry.due > now:
                continue  # extended or replaced since
            self._drop_key(self._stale, self._old, key)
            target = self._path(self._stale, key, entry)
            try:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._path(self._pages, key, entry).rename(target)
            except OSError:
                self._drop_key(self._pages, self._fresh, key)
                continue
            self._old[key] = self._fresh.pop(key)

    def _drop(self, project: str) -> None:
        for root, known in self._both():
            for key in [key for key in known if key[2] == project]:
                self._drop_key(root, known, key)

    def _drop_key(self, root: Path, known: OrderedDict[Key, _Entry], key: Key) -> None:
        entry = known.pop(key, None)
        if entry is not None:
            self._bytes -= entry.bytes
            self._throw_away(self._path(root, key, entry))

    def _drop_all(self) -> None:
        for root, known in self._both():
            if known:
                known.clear()
                self._throw_away(root)
                root.mkdir(mode=0o700, exist_ok=True)
        self._bytes = 0
        self._dues.clear()

    def _both(self) -> Iterator[tuple[Path, OrderedDict[Key, _Entry]]]:
        yield self._pages, self._fresh
        yield self._stale, self._old

    def _throw_away(self, path: Path) -> None:
        """Hide a directory by one rename; ``watch`` deletes it. Raises OSError when it stays visible."""
        if not path.exists():
            return
        self._thrown += 1
        try:
            path.rename(self._trash / str(self._thrown))
        except OSError:  # a full disk has no room for another name
            shutil.rmtree(path)

    def _path(self, root: Path, key: Key, entry: _Entry) -> Path:
        return root.joinpath(entry.level, *key)


def pack(body: bytes) -> bytes:
    """``body`` as clients get it that take gzip."""
    return gzip.compress(body, _GZIP_LEVEL, mtime=0)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
