"""The data of devpi-server 6 as its own export has it (``devpi-export``, dump version 2), read from its database alone.

It may be in use. A later pass reads only the projects that are due, for commits may wait while it does. The paths of
files are those below ``+files``.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby
from operator import itemgetter
from typing import Any

from devpi_server.normalized import normalize_name

_PROJECTS = ("PROJVERSIONS", "PROJVERSION", "PROJSIMPLELINKS")
_FILES = ("STAGEFILE", "PYPIFILE_NOMD5")
_AT_ONCE = 500
"""Keys of one query: SQLite takes a thousand in each version."""
_NO_COMMIT = -1

Project = tuple[str, str]
"""Index (``user/name``) and normalised name."""


@dataclass(frozen=True)
class Mirrored:
    """A file of a mirror that is here. ``path``: below ``+files``; ``file``: the file object of its page."""

    path: str
    file: Mapping[str, Any]
    entry: Mapping[str, Any]


@dataclass
class Data:
    """The data as of ``serial``. Callers may modify every value.

    ``touched``: projects whose content was changed after an earlier serial, with some that are gone. ``versions``:
    metadata by version, of all registered projects, and empty for those that were not read. ``files``: descriptions of
    uploads, documentation and test results, as an export has them.
    """

    serial: int
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    indexes: dict[str, dict[str, Any]] = field(default_factory=dict)
    touched: set[Project] = field(default_factory=set)
    versions: dict[Project, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[Project, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    mirrored: dict[Project, list[Mirrored]] = field(default_factory=lambda: defaultdict(list))


def last_serial(connection: sqlite3.Connection) -> int:
    found = connection.execute("select max(serial) from changelog").fetchone()[0]
    return _NO_COMMIT if found is None else int(found)


def read(connection: sqlite3.Connection, *, since: int = _NO_COMMIT) -> Data:
    """Read everything, as of one moment. ``since``: the serial after which a project counts as touched."""
    with as_of_one_moment(connection):
        data = overview(connection, since=since)
        fill(connection, data)
    return data


@contextlib.contextmanager
def as_of_one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Let what is read inside be of one moment: commits wait."""
    connection.execute("begin")
    try:
        yield
    finally:
        connection.execute("rollback")


def overview(connection: sqlite3.Connection, *, since: int = _NO_COMMIT) -> Data:
    """Read users, indexes, the names of projects, and which of them were touched. No project is read yet."""
    data = Data(last_serial(connection))
    values: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, kind, value in _values(connection, _rows(connection, ("USER", "PROJNAMES"))):
        values[kind][key] = value
    _users(data, values["USER"])
    for key, names in values["PROJNAMES"].items():
        _registered(data, key, names)
    data.touched |= {_project_of(key) for key, _, _ in _rows(connection, _PROJECTS, since=since)}
    if since != _NO_COMMIT:  # in all that there is, a file has a project
        for key, _, value in _values(connection, _rows(connection, _FILES, since=since)):
            if value and value.get("project"):  # a deleted file was of a version that has changed, too
                data.touched.add((_index_of(key), _normal(value["project"])))
    return data


def fill(connection: sqlite3.Connection, data: Data, due: Collection[Project] | None = None) -> None:
    """Read the projects that are ``due``, all by default."""
    kinds = ("PROJVERSION", "PROJSIMPLELINKS")
    rows = [row for row in _rows(connection, kinds) if due is None or _project_of(row[0]) in due]
    found = [(key, kind, value) for key, kind, value in _values(connection, rows) if value]
    paths = {_path_of(link) for _, kind, value in found for link in _links(kind, value)}
    of_files = _rows(connection, _FILES) if due is None else _rows_of(connection, sorted(paths))
    entries = {key: value for key, _, value in _values(connection, of_files) if value}
    for key, kind, value in found:
        (_version if kind == "PROJVERSION" else _mirrored)(data, key, value, entries)


_Row = tuple[str, str, int]
"""Key, kind and serial."""


def _rows(connection: sqlite3.Connection, kinds: Sequence[str], *, since: int = _NO_COMMIT) -> list[_Row]:
    asked = f"select key, keyname, serial from kv where keyname in ({_marks(kinds)}) and serial > ?"  # noqa: S608
    return connection.execute(asked, (*kinds, since)).fetchall()


def _rows_of(connection: sqlite3.Connection, keys: Sequence[str]) -> list[_Row]:
    found: list[_Row] = []
    for first in range(0, len(keys), _AT_ONCE):
        some = keys[first : first + _AT_ONCE]
        asked = f"select key, keyname, serial from kv where key in ({_marks(some)})"  # noqa: S608
        found += connection.execute(asked, some).fetchall()
    return found


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _values(connection: sqlite3.Connection, rows: Iterable[_Row]) -> Iterator[tuple[str, str, Any]]:
    """Key, kind and value of each row; None for a key that was deleted. A commit is read once."""
    loads = import_module("devpi_server.fileutil").loads
    for serial, of_commit in groupby(sorted(rows, key=itemgetter(2)), key=itemgetter(2)):
        (raw,) = connection.execute("select data from changelog where serial = ?", (serial,)).fetchone()
        changes, _ = loads(bytes(raw))
        for key, kind, _ in of_commit:
            yield key, kind, changes[key][2]


def _links(kind: str, value: Mapping[str, Any]) -> Iterable[str]:
    """The paths of the files that a version, or the page of a mirror, names."""
    if kind == "PROJVERSION":
        return (link["entrypath"] for link in value.get("+elinks", ()))
    return (str(href) for _, href in value.get("links") or ())


def _path_of(link: str) -> str:
    return link.partition("#")[0]


def _index_of(key: str) -> str:
    return "/".join(key.split("/", 2)[:2])


def _project_of(key: str) -> Project:
    return _index_of(key), _normal(key.split("/", 3)[2])


def _users(data: Data, users: Mapping[str, Any]) -> None:
    for key, value in users.items():
        if value is None:
            continue
        name, config = key.partition("/")[0], dict(value)
        for index, settings in (config.pop("indexes", None) or {}).items():
            data.indexes[f"{name}/{index}"] = {kind: _listed(one) for kind, one in settings.items()}
        data.users[name] = config


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _version(data: Data, key: str, value: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    user, index, project, version = key.split("/")[:4]
    place = (f"{user}/{index}", _normal(project))
    data.versions[place][version] = {name: one for name, one in value.items() if not name.startswith("+")}
    links = [link for link in value.get("+elinks", ()) if _path_of(link["entrypath"]) in entries]
    documentation = [link for link in links if link["rel"] == "doczip"][-1:]  # devpi serves the newest one
    others = [link for link in links if link["rel"] != "doczip"]
    # Test results are about uploads, which come first.
    for link in sorted((*others, *documentation), key=lambda link: link["rel"] == "toxresult"):
        path = _path_of(link["entrypath"])
        if not entries[path].get("last_modified"):
            continue
        described = {
            "type": link["rel"],
            "projectname": place[1],
            "version": version,
            "relpath": path,
            "entrymapping": dict(entries[path]),
            "log": [{**one, "when": list(one["when"])} for one in link.get("_log") or ()],
        }
        data.files[place].append(
            described | ({"for_entrypath": link["for_entrypath"]} if link.get("for_entrypath") else {})
        )


def _registered(data: Data, key: str, names: Any) -> None:
    """Names on an index without any version: devpi keeps them, and ``owns`` nothing else."""
    index = key.removesuffix("/.projects")
    if data.indexes.get(index, {}).get("type") != "mirror":
        for name in names or ():
            data.versions[index, _normal(name)]


def _mirrored(data: Data, key: str, value: Mapping[str, Any], entries: Mapping[str, Any]) -> None:
    user, index, project = key.split("/")[:3]
    if data.indexes.get(f"{user}/{index}", {}).get("type") != "mirror":
        return  # devpi keeps the links of uploads in such keys, too
    requires, yanked = value.get("requires_python") or (), value.get("yanked") or ()
    for number, (filename, href) in enumerate(value.get("links") or ()):
        path = _path_of(str(href))
        entry = entries.get(path)
        if entry is None or not entry.get("last_modified"):
            continue
        file = {
            "filename": filename,
            "url": entry["url"],
            "hashes": _hash_of(str(href).partition("#")[2]),
            "requires-python": requires[number] if number < len(requires) else None,
            "yanked": yanked[number] if number < len(yanked) else None,
        }
        data.mirrored[f"{user}/{index}", _normal(project)].append(Mirrored(path, file, dict(entry)))


def _hash_of(fragment: str) -> dict[str, str]:
    kind, _, digest = fragment.partition("=")
    return {kind: digest} if digest else {}


def _normal(name: str) -> str:
    return str(normalize_name(name))
