"""Users and indexes, as a server has them or as they are wanted. Pure.

Fields are called as in ``fields.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from deployer.devpi.fields import USER_FIELDS, IndexCodec, Value, codec_of_index, read
from deployer.errors import ProfileError

ROOT = "root"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One user or index: the owned fields, and those that are only set at creation."""

    fields: Mapping[str, Value] = field(default_factory=dict)
    initial: Mapping[str, Value] = field(default_factory=dict)

    @property
    def type(self) -> str:
        """The type of an index; empty when unknown."""
        return str(self.fields.get("type", ""))

    @property
    def bases(self) -> tuple[str, ...]:
        """The direct bases of an index."""
        bases = self.fields.get("bases", ())
        return bases if isinstance(bases, tuple) else ()


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Users by name and indexes by ``user/name``."""

    users: Mapping[str, Node] = field(default_factory=dict)
    indexes: Mapping[str, Node] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> Topology:
        """Parse the answer of any devpi to ``GET /``. Raises ValueError for another shape."""
        users: dict[str, Node] = {}
        indexes: dict[str, Node] = {}
        for user, config in raw.items():
            if not isinstance(config, dict) or not isinstance(config.get("indexes", {}), dict):
                raise ValueError(f"expected a user's configuration, got {config!r}")
            users[_name(user)] = Node(fields=read(USER_FIELDS, config))
            for name, index in config.get("indexes", {}).items():
                if not isinstance(index, dict):
                    raise ValueError(f"expected an index's configuration, got {index!r}")
                indexes[f"{user}/{_name(name)}"] = Node(fields=codec_of_index(index).decode(index))
        return cls(users=users, indexes=indexes)

    def fit(self, codec: IndexCodec) -> Topology:
        """Return the part that a server of ``codec`` supports. Raises ProfileError for unsupported values."""
        return Topology(
            users=self.users,
            indexes={
                name: Node(fields=codec.fit(name, node.fields), initial=codec.fit(name, node.initial))
                for name, node in self.indexes.items()
            },
        )

    def heirs(self, base: str) -> tuple[str, ...]:
        """The indexes that have ``base`` among their bases."""
        return tuple(sorted(name for name, node in self.indexes.items() if base in node.bases))


def _name(name: str) -> str:
    """Return ``name``. Raises ValueError for control characters, which messages would send to a terminal."""
    if not name.isprintable():
        raise ValueError(f"expected a name, got {name!r}")
    return name


EMPTY = Topology(users={ROOT: Node()})
"""What a server has after its first boot."""


def bases_first(indexes: Mapping[str, Node]) -> tuple[str, ...]:
    """Sort indexes by inheritance, bases first. Raises ProfileError for circular bases."""
    graph = {name: [base for base in node.bases if base in indexes] for name, node in indexes.items()}
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ProfileError(f"circular bases: {circle}", hint="remove one of them from `bases`") from None
