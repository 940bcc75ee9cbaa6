"""The pages of upstreams on the disk, as they were when the upstream last answered.

``<serverdir>/.deployer/upstream/USER/INDEX/PROJECT``: the first line is a checksum of the rest and a JSON object,
:class:`Head`; each further line is a file object of the page. A file is found by its name without reading the others as
JSON. The time at which the upstream last confirmed the page is the file's modification time. A damaged file counts as
none.

``<serverdir>/.deployer/upstream/USER/INDEX/.url`` is the address of the upstream that the index mirrored last, and the
word ``replaced`` if there was another one before. ``.hosts`` beside it has the hosts of files, one a line, and
``.json/`` pages of the upstream's JSON API.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from deployer.protocol import is_host
from deployer.server.devpi.links import place
from deployer.server.json_text import dumps, loads
from deployer.server.mirrors.page import File, Page
from deployer.server.secret_files import read_dated, write_cached, write_private

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
"""A normalised name of a project. Names of users and indexes may have any characters but those of paths."""
_SUM = 9
"""Bytes of the checksum and the space after it."""
REMEMBERED = 4096
"""Pages of which the path is kept in memory: to make one takes longer than to open the file."""
_URL, _HOSTS, _API, _REPLACED = ".url", ".hosts", ".json", "replaced"
MOST_HOSTS = 16
"""Hosts of files that are kept of one mirror."""
_LOOKED_AT = 20
"""Pages in which hosts are looked for where none were kept."""


@dataclass(frozen=True)
class Head:
    """What is known of a page besides its files.

    ``url``: where it came from, after redirects. ``mirror``: the address of the mirror's upstream. ``etag`` and
    ``modified``: its validators, empty without. ``fields``: the top level of the page without files. ``files``: their
    number. ``serial``: the upstream's ``X-PyPI-Last-Serial``, empty without. ``gone``: the upstream has deleted it
    since. ``lacking``: the places of wheels in which no metadata was found. ``first``: by name, the files as they were
    at first that the page no longer has, or has with another hash (:mod:`deployer.server.guard.first_seen`).
    """

    mirror: str
    url: str
    etag: str
    modified: str
    serial: str
    files: int
    fields: dict[str, Any]
    gone: bool = False
    lacking: list[str] = field(default_factory=list)
    first: dict[str, File] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A page on the disk. ``at``: when its upstream last confirmed it, in seconds since the epoch."""

    head: Head
    at: float
    lines: bytes

    def page(self) -> Page:
        return Page(self.head.fields, self.lines)

    def find(self, path: str) -> File | None:
        """The file object whose place below the index is ``path``."""
        for file in self.named(path.rpartition("/")[2]):
            if place(file) == path:
                return file
        return None

    def named(self, filename: str) -> Iterator[File]:
        """The file objects with this name."""
        wanted = b'"filename":' + dumps(filename)
        position = self.lines.find(wanted)
        while position >= 0:
            start, end = self.lines.rfind(b"\n", 0, position) + 1, self.lines.find(b"\n", position)
            file = loads(self.lines[start : end if end >= 0 else None])
            if file.get("filename") == filename:
                yield file
            position = self.lines.find(wanted, position + 1)


class UpstreamPages:
    """All pages on the disk. ``directory``: their root."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.path = lru_cache(REMEMBERED)(self._path)
        self._noting = threading.Lock()
        self.on_write: Callable[[str, str, int, str], None] = lambda mirror, project, size, url: None
        """Called with the mirror, the project, the bytes of its page, and the address of its upstream."""

    def _path(self, mirror: str, project: str) -> Path | None:
        """Where a page is; None for names that are no plain names of files. ``mirror``: ``user/index``."""
        parts = mirror.split("/")
        if len(parts) != 2 or not all(map(_is_name, parts)) or not _PLAIN.fullmatch(project):
            return None
        return self._directory.joinpath(*parts, project)

    def api(self, mirror: str, name: str) -> Path | None:
        """Where a page of the JSON API is. ``name``: a plain name, of a project or of one of its versions."""
        path = self.path(mirror, "x")
        return None if path is None else path.with_name(_API) / name

    def read(self, mirror: str, project: str, *, url: str) -> Kept | None:
        """The page, if it is of the upstream ``url``; None for none, or a damaged one."""
        path = self.path(mirror, project)
        if path is None:
            return None
        try:
            content, at = read_dated(path)
            if not is_whole(content):
                return None
            first, _, lines = content.partition(b"\n")
            head = Head(**loads(first[_SUM:]))
        except (OSError, ValueError, TypeError):
            return None
        return Kept(head, at, lines) if head.mirror == url else None

    def write(self, mirror: str, project: str, head: Head, lines: bytes, *, at: float) -> Kept | None:
        """Keep a page, of which ``lines`` are the files as :class:`Page` has them; None when its names are not plain.

        Raises OSError, for example on a full disk.
        """
        path = self.path(mirror, project)
        if path is None:
            return None
        self._replace(path, head, lines, at)
        self.on_write(mirror, project, len(lines), head.mirror)
        return Kept(head, at, lines)

    def mark(self, mirror: str, project: str, kept: Kept, *, at: float, **changes: Any) -> Kept:
        """Replace fields of the head (``gone``, ``lacking``) of a page that is kept. Raises OSError."""
        path = self.path(mirror, project)
        head = replace(kept.head, **changes)
        if path is not None:
            self._replace(path, head, kept.lines, at)
        return Kept(head, at, kept.lines)

    @staticmethod
    def _replace(path: Path, head: Head, lines: bytes, at: float) -> None:
        first = dumps(vars(head)) + b"\n"
        write_cached(path, b"".join((_checksum(first, lines), first, lines)))
        os.utime(path, (at, at))

    def confirm(self, mirror: str, project: str, *, at: float) -> None:
        """Note that the upstream still has this page."""
        path = self.path(mirror, project)
        if path is not None:
            with contextlib.suppress(OSError):
                os.utime(path, (at, at))

    def remove(self, mirror: str, project: str) -> None:
        """Forget a page. Raises OSError."""
        path = self.path(mirror, project)
        if path is not None:
            path.unlink(missing_ok=True)

    def is_gone(self, mirror: str, project: str) -> bool:
        """Whether the upstream has deleted the project; the files of the page are not read."""
        path = self.path(mirror, project)
        with contextlib.suppress(OSError, ValueError, TypeError):
            if path is not None:
                with path.open("rb") as file:
                    return Head(**loads(file.readline()[_SUM:])).gone
        return False

    def projects(self, mirror: str) -> list[str]:
        """The projects of which a page is kept, sorted."""
        path = self.path(mirror, "x")
        if path is None:
            return []
        with contextlib.suppress(OSError):
            return sorted(entry.name for entry in os.scandir(path.parent) if _PLAIN.fullmatch(entry.name))
        return []

    def hosts(self, mirror: str) -> list[str]:
        """The hosts of the files on the pages of a mirror, sorted."""
        path = self.path(mirror, "x")
        if path is None:
            return []
        with contextlib.suppress(OSError, UnicodeError):
            return path.with_name(_HOSTS).read_text(encoding="utf-8").splitlines()
        found: set[str] = set()
        for project in self.projects(mirror)[:_LOOKED_AT]:
            with contextlib.suppress(OSError, ValueError):
                found |= file_hosts(map(loads, path.with_name(project).read_bytes().splitlines()[1:]))
        return sorted(found)

    def add_hosts(self, mirror: str, hosts: set[str]) -> None:
        """Keep hosts of files, at most :data:`MOST_HOSTS`. Raises OSError."""
        path = self.path(mirror, "x")
        with self._noting:
            known = self.hosts(mirror)
            if path is None or (hosts <= set(known) and path.with_name(_HOSTS).exists()):
                return
            kept = [*known, *sorted(hosts - set(known))][:MOST_HOSTS]
            write_cached(path.with_name(_HOSTS), "".join(f"{host}\n" for host in sorted(kept)).encode())

    def former(self, mirror: str) -> str | None:
        """The address of the upstream that the index mirrored last; None for a new index."""
        return next(iter(self._lines(mirror)), None)

    def replaced(self, mirror: str) -> bool:
        """Whether the index has mirrored more than one upstream."""
        return _REPLACED in self._lines(mirror)[1:]

    def _lines(self, mirror: str) -> list[str]:
        path = self.path(mirror, "x")
        try:
            return path.with_name(_URL).read_text(encoding="utf-8").splitlines() if path else []
        except (OSError, UnicodeError):
            return []

    def begin(self, mirror: str, url: str, *, replaced: bool) -> None:
        """Note the upstream of a mirror, and forget the pages of a former one. Raises OSError."""
        path = self.path(mirror, "x")
        if path is None:
            return
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path.with_name(_URL), f"{url}\n{_REPLACED if replaced else ''}\n")

    def keep_only(self, mirrors: Collection[str]) -> list[str]:
        """Forget the pages of indexes that are no more. Return their names."""
        found = {"/".join(path.parts[-2:]): path for path in self._directory.glob("*/*")}
        gone = sorted(found.keys() - set(mirrors))
        for name in gone:
            shutil.rmtree(found[name], ignore_errors=True)
        return gone


def file_hosts(files: Iterable[File]) -> set[str]:
    """The hosts of files, with their ports where those are not the one of https; of addresses with https alone."""
    # urlsplit for each of ten thousand files takes longer than all else that is done with a page.
    found = {url.split("/", 3)[2] for file in files if (url := file.get("url", "")).startswith("https://")}
    return {host for host in map(host_of, found) if is_host(host)}


def host_of(netloc: str) -> str:
    """The host in the middle of an address, with its port if that is not the one of https."""
    return netloc.rpartition("@")[2].lower().removesuffix(":443")


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()


def is_whole(content: bytes) -> bool:
    """Whether the bytes of a page are those that were written."""
    return content[:_SUM] == _checksum(memoryview(content)[_SUM:])


def _checksum(*parts: bytes | memoryview) -> bytes:
    """Of the parts as one."""
    found = 0
    for part in parts:
        found = zlib.crc32(part, found)
    return b"%08x " % found
