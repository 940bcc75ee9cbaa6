"""What devpi's changelog says of pages: each committed serial names the keys that it changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from devpi_server.normalized import normalize_name

FAR = 2000
"""Serials behind which it is cheaper to take everything as changed than to read what did."""
_OF_ONE_PROJECT = ("PROJSIMPLELINKS", "PROJVERSIONS", "PROJVERSION")


@dataclass(frozen=True)
class Everything:
    """Users or indexes changed: any page may differ."""


EVERYTHING = Everything()
Touched = Everything | str
"""All pages, or those of a project (normalised name) on every index, since indexes inherit."""


class Changelog:
    """devpi's own record of what was committed."""

    def __init__(self, keyfs: Any, *, offline: bool = False) -> None:
        self._keyfs = keyfs
        self.offline = offline

    @property
    def serial(self) -> int:
        """The serial of the last commit. Outside a transaction, so that it is not an older one's view."""
        with self._keyfs.get_connection() as connection:
            return int(connection.db_read_last_changelog_serial())

    def raw(self, serial: int) -> bytes:
        """One entry as it is stored: what tells this history from another one; empty when there is none."""
        with self._keyfs.get_connection() as connection:
            return connection.get_raw_changelog_entry(serial) or b""

    def since(self, seen: int, current: int) -> Iterator[tuple[int, set[Touched]]]:
        """For each serial after ``seen``, up to ``current``, what it touched."""
        if current - seen > FAR or current < seen:
            yield current, {EVERYTHING}
            return
        with self._keyfs.get_connection() as connection:
            for serial in range(seen + 1, current + 1):
                changes = connection.get_changes(serial)
                touched: set[Touched] = set()
                for relpath, (keyname, back_serial, value) in changes.items():
                    touched |= self._touched(connection, relpath, keyname, back_serial, value)
                yield serial, touched

    def _touched(self, connection: Any, relpath: str, keyname: str, back_serial: int, value: Any) -> set[Touched]:
        if keyname == "USER":
            return {EVERYTHING}
        if keyname in _OF_ONE_PROJECT:
            return {normalize_name(self._parameters(keyname, relpath)["project"])}
        if keyname == "PROJNAMES" and not self._is_mirror(connection, relpath):
            before = self._value(connection, relpath, back_serial)
            return {normalize_name(name) for name in set(value or ()) ^ set(before or ())}
        if keyname in ("STAGEFILE", "PYPIFILE_NOMD5") and self.offline:
            # Only offline does a mirror's page depend on which of its files are here.
            entry = value or self._value(connection, relpath, back_serial) or {}
            return {normalize_name(entry["project"])} if entry.get("project") else {EVERYTHING}
        return set()

    def _parameters(self, keyname: str, relpath: str) -> dict[str, str]:
        key = self._keyfs.get_key(keyname)
        return dict(key.extract_params(relpath))

    def _value(self, connection: Any, relpath: str, serial: int) -> Any:
        if serial < 0:
            return None
        try:
            return connection.get_relpath_at(relpath, serial)[2]
        except KeyError:
            return None

    def _is_mirror(self, connection: Any, relpath: str) -> bool:
        """A mirror's list of names grows with each page that is fetched, and the page's own key tells that."""
        of = self._parameters("PROJNAMES", relpath)
        user = self._keyfs.USER(user=of["user"])
        try:
            value = connection.get_relpath_at(user.relpath, connection.db_read_last_changelog_serial())[2]
        except KeyError:
            return False
        index = ((value or {}).get("indexes") or {}).get(of["index"]) or {}
        return bool(index.get("type") == "mirror")
