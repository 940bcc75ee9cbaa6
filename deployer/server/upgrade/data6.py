"""The data of devpi-server 6 as its own export has it (``devpi-export``, dump version 2), read from its database alone.

It may be in use: it is read in one transaction, as of one moment. The paths of files are those below ``+files``.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from devpi_server.normalized import normalize_name

_KINDS = ("USER", "PROJNAMES", "PROJVERSIONS", "PROJVERSION", "PROJSIMPLELINKS", "STAGEFILE", "PYPIFILE_NOMD5")
_FILES = frozenset({"STAGEFILE", "PYPIFILE_NOMD5"})
_CURRENT = """
    select kv.key, kv.keyname, kv.serial, changelog.data from kv join changelog on changelog.serial = kv.serial
    where kv.keyname in ({}) order by kv.serial
"""
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
    metadata by version. ``files``: descriptions of uploads, documentation and test results, as an export has them.
    """

    serial: int
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    indexes: dict[str, dict[str, Any]] = field(default_factory=dict)
    touched: set[Project] = field(default_factory=set)
    versions: dict[Project, dict[str, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    files: dict[Project, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    mirrored: dict[Project, list[Mirrored]] = field(default_factory=lambda: defaultdict(list))

    @property
    def projects(self) -> set[Project]:
        return {*self.versions, *self.mirrored}


def last_serial(connection: sqlite3.Connection) -> int:
    found = connection.execute("select max(serial) from changelog").fetchone()[0]
    return _NO_COMMIT if found is None else int(found)


def read(connection: sqlite3.Connection, *, since: int = _NO_COMMIT) -> Data:
    """Read all users, indexes and projects. ``since``: the serial after which a project counts as touched."""
    connection.execute("begin")
    try:
        data = Data(last_serial(connection))
        values: dict[str, dict[str, Any]] = defaultdict(dict)
        for key, kind, serial, value in _current(connection):
            values[kind][key] = value
            if serial > since and kind not in ("USER", "PROJNAMES"):
                data.touched |= _touched(key, kind, value)
    finally:
        connection.execute("rollback")
    _users(data, values["USER"])
    entries = {key: value for kind in _FILES for key, value in values[kind].items() if value}
    for key, value in values["PROJVERSION"].items():
        if value:
            _version(data, key, value, entries)
    for key, names in values["PROJNAMES"].items():
        _registered(data, key, names)
    for key, value in values["PROJSIMPLELINKS"].items():
        if value:
            _mirrored(data, key, value, entries)
    return data


def _current(connection: sqlite3.Connection) -> Iterator[tuple[str, str, int, Any]]:
    loads = import_module("devpi_server.fileutil").loads
    known, changes = _NO_COMMIT, {}
    asked = _CURRENT.format(", ".join("?" * len(_KINDS)))
    for key, kind, serial, raw in connection.execute(asked, _KINDS):
        if serial != known:
            known, (changes, _) = serial, loads(bytes(raw))
        yield key, kind, serial, changes[key][2]


def _touched(key: str, kind: str, value: Any) -> set[Project]:
    user, index, rest = key.split("/", 2)
    if kind in _FILES:
        # A deleted file was of a version that has changed, too.
        return {(f"{user}/{index}", _normal(value["project"]))} if value and value.get("project") else set()
    return {(f"{user}/{index}", _normal(rest.partition("/")[0]))}


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
    links = [link for link in value.get("+elinks", ()) if link["entrypath"].partition("#")[0] in entries]
    documentation = [link for link in links if link["rel"] == "doczip"][-1:]  # devpi serves the newest one
    others = [link for link in links if link["rel"] != "doczip"]
    # Test results are about uploads, which come first.
    for link in sorted((*others, *documentation), key=lambda link: link["rel"] == "toxresult"):
        path = link["entrypath"].partition("#")[0]
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
        path = str(href).partition("#")[0]
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
