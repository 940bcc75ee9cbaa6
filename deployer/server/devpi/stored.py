"""The files that a database of devpi knows: read from the database alone, live or a copy, without devpi's server."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from deployer.protocol import ExitCode, Refusal, UpgradePath
from deployer.server.devpi.installed import KNOWN, Devpi, installed

FILES = "+files"
"""devpi's directory of files, below the server directory."""

_OF_6 = """
    select kv.key, kv.serial, changelog.data from kv join changelog on changelog.serial = kv.serial
    where kv.keyname in ({}) and kv.serial > ? order by kv.serial
"""
_OF_7 = """
    with latest as (select ulid, max(serial) as serial from ulid_changelog group by ulid)
    select {}, c.value, f.deleted_at_serial is not null,
      max(latest.serial, coalesce(f.deleted_at_serial, -1)) as touched
    from ulid_info f {} join latest on latest.ulid = f.ulid
    join ulid_changelog c on c.ulid = latest.ulid and c.serial = latest.serial
    where f.keytype in ({}) and touched > ? order by touched, f.deleted_at_serial is null
"""
"""A commit may delete a file and store it again: what is there comes last."""
_PARENTS = "join ulid_info i on i.ulid = f.parent_ulid join ulid_info u on u.ulid = i.parent_ulid"
_COUNT_OF_7 = f"""
    select u.name || '/' || i.name, count(*) from ulid_info f {_PARENTS}
    where f.keytype in ('FILE', 'FILE_NOHASH') and f.deleted_at_serial is null group by 1
"""  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that the database says is here. ``path``: below ``+files``. ``hashes``: by type, in hexadecimal.

    ``mirror``: it is of a mirror, so it can be fetched again. ``project``: of an upload.
    """

    path: str
    hashes: Mapping[str, str]
    mirror: bool
    project: str = ""

    @property
    def sha256(self) -> str | None:
        return self.hashes.get("sha256")


def database(serverdir: Path) -> Path:
    return serverdir / installed().database


def sizes(path: Path) -> dict[str, int]:
    """Size of a database and of its unused pages, in bytes, from its header (sqlite.org/fileformat.html, 1.3)."""
    with path.open("rb") as stream:
        header = stream.read(100)
    page = int.from_bytes(header[16:18], "big")
    free = int.from_bytes(header[36:40], "big") * (65536 if page == 1 else page)
    return {"bytes": path.stat().st_size, "free_bytes": free}


def former_bytes(serverdir: Path) -> int:
    """What the databases from before upgrades take, which are no links as their files are."""
    found = 0
    for path in (serverdir / UpgradePath.FORMER).glob("*/.sqlite*"):
        with contextlib.suppress(OSError):  # removed meanwhile
            found += path.stat().st_size
    return found


def connect(path: Path) -> closing[sqlite3.Connection]:
    """Open a database that exists, for reading and for the rollback of a transaction that was cut short."""
    if not path.exists():
        raise Refusal(f"{path} is missing", hint="name the server directory", code=ExitCode.REFUSED)
    return closing(sqlite3.connect(path, timeout=60, isolation_level=None))


def serial(connection: sqlite3.Connection) -> int:
    """The serial of the last commit; -1 of an empty database."""
    table = "changelog" if installed().major == "6" else "ulid_changelog"
    found = connection.execute(f"select max(serial) from {table}").fetchone()[0]  # noqa: S608 - a constant
    return -1 if found is None else int(found)


def database_of(layout: str, serverdir: Path) -> Path:
    """The database of data of this layout, whatever version is installed."""
    return serverdir / _known(layout).database


def _known(layout: str) -> Devpi:
    """The version that writes this layout; the installed one for an empty one."""
    return next((known for known in KNOWN if known.layout == layout), installed())


def stored(connection: sqlite3.Connection, *, layout: str = "") -> Iterator[Stored]:
    """Yield the files that are here, as of one moment: in one read transaction.

    ``layout``: of the data; that of the installed version by default.
    """
    found = dict(changed(connection, since=-1, layout=layout))
    return (file for file in found.values() if file is not None)


def changed(connection: sqlite3.Connection, *, since: int, layout: str = "") -> Iterator[tuple[str, Stored | None]]:
    """Yield the files that commits after the serial ``since`` touched, by path, the last change of a path last; None
    for one that is not here any more. In one read transaction.
    """
    connection.execute("begin")
    try:
        mirrors = {index for index, kind in types(connection, layout=layout).items() if kind == "mirror"}
        for path, _, value in _values(connection, _known(layout), since=since):
            if value is None or not value.get("last_modified"):  # devpi's own sign of a file that was stored
                yield path, None
            else:
                mirror = "/".join(path.split("/")[:2]) in mirrors
                yield path, Stored(path, _hashes(value), mirror, str(value.get("project") or ""))
    finally:
        connection.execute("rollback")


def types(connection: sqlite3.Connection, *, layout: str = "") -> dict[str, str]:
    """The type of each index: ``mirror``, ``stage``, or one of a plugin. ``layout``: as of :func:`stored`."""
    maker = _known(layout)
    found = {f"{user}/{name}": config for user, name, config in _values(connection, maker, indexes=True)}
    said = {index: str(config.get("type")) for index, config in found.items() if config is not None}
    names = {maker.mirror: "mirror", maker.stage: "stage"}
    return {index: names.get(kind, kind) for index, kind in said.items()}


def counted(connection: sqlite3.Connection) -> tuple[int, int]:
    """The numbers of uploads and of mirrors' files in a database of devpi-server 7, from its keys alone."""
    kinds = types(connection)
    numbers = {True: 0, False: 0}
    for index, number in connection.execute(_COUNT_OF_7):
        numbers[kinds.get(index) == "mirror"] += number
    return numbers[False], numbers[True]


def finish_renames(connection: sqlite3.Connection) -> None:
    """Note that the files of the last commit have their names: devpi does not start while one of them is missing."""
    coding = import_module("devpi_server.fileutil")
    if installed().major == "7":  # which also reads its last serial from this table
        connection.execute("update crash_actions set data = ?", (coding.dumps([]),))
        return
    last = connection.execute("select serial, data from changelog order by serial desc limit 1").fetchone()
    if last is not None:
        changes, _ = coding.loads(bytes(last[1]))
        connection.execute("update changelog set data = ? where serial = ?", (coding.dumps((changes, [])), last[0]))


def _hashes(value: Mapping[str, Any]) -> Mapping[str, str]:
    found = {str(kind): str(digest) for kind, digest in (value.get("hashes") or {}).items()}
    kind, _, digest = (value.get("hash_spec") or "").partition("=")
    return {kind: digest, **found} if digest else found


_Value = tuple[str, str, Mapping[str, Any] | None]
"""Path, or user and index; None for what was deleted."""


def _values(
    connection: sqlite3.Connection, maker: Devpi, *, indexes: bool = False, since: int = -1
) -> Iterator[_Value]:
    of = _of_6 if maker.major == "6" else _of_7
    return of(connection, indexes, since)


def _of_6(connection: sqlite3.Connection, indexes: bool, since: int) -> Iterator[_Value]:
    loads = partial(import_module("devpi_server.fileutil").loads)
    kinds = ("USER",) if indexes else ("STAGEFILE", "PYPIFILE_NOMD5")
    known, changes = -1, {}
    for key, number, data in connection.execute(_OF_6.format(", ".join("?" * len(kinds))), (*kinds, since)):
        if number != known:
            known, (changes, _) = number, loads(bytes(data))
        value = changes[key][2]
        if not indexes:
            yield key, "", value
        elif value is not None:
            user = key.split("/")[0]
            yield from ((user, name, config) for name, config in (value.get("indexes") or {}).items())


def _of_7(connection: sqlite3.Connection, indexes: bool, since: int) -> Iterator[_Value]:
    loads = partial(import_module("devpi_server.fileutil").loads)
    kinds = ("INDEX",) if indexes else ("FILE", "FILE_NOHASH")
    columns = "u.name, f.name" if indexes else "u.name || '/' || i.name || '/' || f.name, ''"
    parents = "join ulid_info u on u.ulid = f.parent_ulid" if indexes else _PARENTS
    asked = _OF_7.format(columns, parents, ", ".join("?" * len(kinds)))
    for one, other, value, deleted, _ in connection.execute(asked, (*kinds, since)):
        yield one, other, None if deleted or value is None else loads(bytes(value))
