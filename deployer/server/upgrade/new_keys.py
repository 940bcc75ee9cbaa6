"""Answer devpi-server 7's lookups of keys that its database never had, without a query.

devpi looks up every key that it is about to write, at least twice, with a statement that SQLAlchemy builds anew each
time. In a conversion nearly every key is new, so these lookups took nine tenths of its time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from deployer.server.devpi import stored

_SINCE = "select rowid, ulid, keytype, name, parent_ulid from ulid_info where rowid > ? order by rowid"


def answer_at_once(xom: Any, database: Path) -> None:
    """Have the connections of ``xom`` answer so. Only ``xom`` writes to the ``database``, from one thread."""
    keys, keyfs = _Keys(database), xom.keyfs
    keys.renew()
    connect = keyfs.get_connection

    def get_connection(*, closing: bool = True, **words: Any) -> Any:
        keys.renew()
        made = _Connection(connect(closing=False, **words), keys)
        return contextlib.closing(made) if closing else made

    keyfs.get_connection = get_connection


class _Keys:
    """Every key that the database has, or had: devpi marks deleted ones, and removes no row."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._last = 0
        self._ulids: set[int] = set()
        self._named: set[tuple[str, str, int]] = set()
        self._parents: set[tuple[str, int]] = set()

    def renew(self) -> None:
        with stored.connect(self._database) as connection:
            for self._last, ulid, kind, name, parent in connection.execute(_SINCE, (self._last,)):  # noqa: B020
                self._ulids.add(ulid)
                self._named.add((kind, name, parent))
                self._parents.add((kind, parent))

    def may_have(self, key: Any) -> bool:
        """Whether the database may have a key, or one of the keys that a pattern means."""
        if hasattr(key, "ulid"):
            return int(key.ulid) in self._ulids
        if not hasattr(key, "query_parent_ulid"):
            return True
        if hasattr(key, "name"):
            return (key.key_name, key.name, key.query_parent_ulid) in self._named
        return (key.key_name, key.query_parent_ulid) in self._parents


class _Connection:
    """A connection of devpi's, of which keys that are new are not asked."""

    def __init__(self, connection: Any, keys: _Keys) -> None:
        self._connection, self._keys = connection, keys

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def get_key_at_serial(self, key: Any, serial: int) -> Any:
        if not self._keys.may_have(key):
            raise KeyError(key)
        return self._connection.get_key_at_serial(key, serial)

    def iter_keys_at_serial(self, keys: Iterable[Any], at_serial: int, **words: Any) -> Iterator[Any]:
        return iter(self._connection.iter_keys_at_serial(self._old(keys), at_serial, **words))

    def iter_ulidkeys_at_serial(self, keys: Iterable[Any], at_serial: int, **words: Any) -> Iterator[Any]:
        return iter(self._connection.iter_ulidkeys_at_serial(self._old(keys), at_serial, **words))

    def _old(self, keys: Iterable[Any]) -> list[Any]:
        return [key for key in keys if self._keys.may_have(key)]
