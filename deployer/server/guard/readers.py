"""Who may read an index: pure data and verdicts.

An index shows what its bases have. So who reads it must be a reader of the index itself and of each index that it
inherits from, at any depth. What an index serves is then the same for all its readers, and pages can be stored.
A base that does not exist serves nothing, and restricts nobody until it does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

FIELD = "acl_read"
"""The attribute of an index with its readers; without it, everybody reads. devpi's other rights have such names."""
EVERYBODY, USERS = ":ANONYMOUS:", ":AUTHENTICATED:"
"""Principals: every client, and every user."""
ALL = frozenset({"root", "+replica"})
"""Who may read every index: root, and a replica, which devpi knows by a secret."""

READ = "read"
"""The name, with a dot among pages, of the directories with what not everybody may read."""


class InvalidReaders(ValueError):
    """A list of readers that can't be used."""


def checked(value: object) -> list[str]:
    """The list as it is stored: users, ``:group`` of a plugin, and the special principals. Raises InvalidReaders."""
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(names, Iterable) or isinstance(names, bytes | Mapping):  # devpi's own lists are no list
        raise InvalidReaders(f"{FIELD}: expected a list of users, got {value!r}")
    found = set()
    for name in names:
        if not isinstance(name, str) or name.startswith("@") or name != "".join(name.split()):
            raise InvalidReaders(f"{FIELD}: {name!r} is no user, {USERS}, {EVERYBODY}, or :GROUP")
        if name:
            found.add(name.upper() if name.upper() in (EVERYBODY, USERS) else name)
    return sorted(found)


def principals(user: str | None, groups: Collection[str] = ()) -> frozenset[str]:
    """What a client is: everybody, and, with a user, also that user and its groups."""
    named = {USERS, user, *(f":{group}" for group in groups)} if user else set()
    return frozenset({EVERYBODY, *named})


@dataclass(frozen=True)
class Readers:
    """The readers of all indexes, as configured.

    ``own``: by index, the principals of its own list; None for everybody. ``bases``: by index. ``at``: the serial of
    devpi's database that this shows.
    """

    own: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    bases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    at: int = -1

    @classmethod
    def of(cls, configs: Mapping[str, Mapping[str, Any]], *, at: int) -> Readers:
        """``configs``: of all indexes, as devpi stores them. A list that can't be used has no readers but root."""
        own: dict[str, frozenset[str] | None] = {}
        for name, config in configs.items():
            try:
                listed = frozenset(checked(config[FIELD])) if FIELD in config else None
            except InvalidReaders:
                listed = frozenset()
            own[name] = None if listed is None or EVERYBODY in listed else listed
        return cls(own, {name: tuple(config.get("bases") or ()) for name, config in configs.items()}, at)

    @cached_property
    def protected(self) -> frozenset[str]:
        """The indexes that not everybody reads."""
        return frozenset(name for name in self.own if any(True for _ in self._lists(name)))

    def may(self, who: frozenset[str], index: str) -> bool:
        """Whether a client with these principals may read an index, and so all that it inherits from."""
        if index not in self.protected:
            return True
        return not ALL.isdisjoint(who) or all(not who.isdisjoint(listed) for listed in self._lists(index))

    def _lists(self, index: str) -> Iterator[frozenset[str]]:
        """The lists of an index and of all that it inherits from."""
        todo, seen = [index], {index}
        while todo:
            name = todo.pop()
            listed = self.own.get(name)
            if listed is not None:
                yield listed
            found = {base for base in self.bases.get(name, ()) if base in self.own and base not in seen}
            seen |= found
            todo += found
