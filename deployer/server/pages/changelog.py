"""What devpi's changelog says of pages: each committed serial names the keys that it changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deployer.server.devpi.installed import inside

FAR = 2000
"""Serials behind which it is cheaper to take everything as changed than to read what did."""


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
        """One entry: what tells this history from another one; empty when there is none."""
        with self._keyfs.get_connection() as connection:
            return bytes(inside().raw(connection, serial))

    def since(self, seen: int, current: int) -> Iterator[tuple[int, set[Touched]]]:
        """For each serial after ``seen``, up to ``current``, what it touched."""
        if current - seen > FAR or current < seen:
            yield current, {EVERYTHING}
            return
        with self._keyfs.get_connection() as connection:
            for serial in range(seen + 1, current + 1):
                found = inside().touched(self._keyfs, connection, serial, offline=self.offline)
                yield serial, {EVERYTHING if project is None else project for project in found}
