"""devpi's changelog, read for the pages that a commit may have changed: each serial names the keys that it changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from deployer.server.devpi.installed import inside

FAR = 2000
"""Number of serials beyond which everything counts as changed: reading them would take longer."""


@dataclass(frozen=True)
class Everything:
    """Any page may have changed: a commit touched users, indexes, or a kind of key that is unknown."""


EVERYTHING = Everything()
Touched = Everything | str
"""All pages, or the pages of a project (normalised name) on every index, because indexes inherit."""


class Changelog:
    """devpi's record of its commits. ``offline``: pages then depend on which files are stored, too."""

    def __init__(self, keyfs: Any, *, offline: bool = False) -> None:
        self._keyfs = keyfs
        self.offline = offline

    @property
    def serial(self) -> int:
        """The serial of the last commit, read outside any transaction, which could see an older state."""
        with self._keyfs.get_connection() as connection:
            return int(connection.db_read_last_changelog_serial())

    def raw(self, serial: int) -> bytes:
        """One entry, which distinguishes this history from others; empty when there is none."""
        with self._keyfs.get_connection() as connection:
            return bytes(inside().raw(connection, serial))

    def since(self, seen: int, current: int) -> Iterator[tuple[int, set[Touched]]]:
        """Yield each serial after ``seen``, up to ``current``, with what it touched."""
        if current - seen > FAR or current < seen:
            yield current, {EVERYTHING}
            return
        with self._keyfs.get_connection() as connection:
            for serial in range(seen + 1, current + 1):
                found = inside().touched(self._keyfs, connection, serial, offline=self.offline)
                yield serial, {EVERYTHING if project is None else project for project in found}
