"""Users and indexes: what the server has, what the profile wants, and the steps from one to the other.

Everything but :func:`apply` is pure. Fields are called as in ``fields.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Protocol

from deployer.devpi.fields import USER_FIELDS, Dialect, Value, dialect_of_index, read
from deployer.errors import ConflictError, ProfileError
from deployer.secrets import mask_url

if TYPE_CHECKING:
    from deployer.secrets import Secret

ROOT = "root"


@dataclass(frozen=True, kw_only=True)
class Node:
    """One user or one index: the fields that are owned, and those that only a creation sets."""

    fields: Mapping[str, Value] = field(default_factory=dict)
    initial: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Users by name and indexes by ``user/name``."""

    users: Mapping[str, Node] = field(default_factory=dict)
    indexes: Mapping[str, Node] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: Mapping[str, object]) -> Topology:
        """What ``GET /`` of any devpi tells. Raises ValueError when that is not its shape."""
        users: dict[str, Node] = {}
        indexes: dict[str, Node] = {}
        for user, config in raw.items():
            if not isinstance(config, dict) or not isinstance(config.get("indexes", {}), dict):
                raise ValueError(f"expected a user's configuration, got {config!r}")
            users[user] = Node(fields=read(USER_FIELDS, config))
            for name, index in config.get("indexes", {}).items():
                if not isinstance(index, dict):
                    raise ValueError(f"expected an index's configuration, got {index!r}")
                indexes[f"{user}/{name}"] = Node(fields=dialect_of_index(index).decode(index))
        return cls(users=users, indexes=indexes)

    def fit(self, dialect: Dialect) -> Topology:
        """What of this a server of that dialect can hold. Raises ProfileError for what it can't be told."""
        return Topology(
            users=self.users,
            indexes={
                name: Node(fields=dialect.fit(name, node.fields), initial=dialect.fit(name, node.initial))
                for name, node in self.indexes.items()
            },
        )

    def heirs(self, base: str) -> tuple[str, ...]:
        """The indexes that have ``base`` among their bases."""
        return tuple(sorted(name for name, node in self.indexes.items() if base in _bases(node)))


_OF_BOTH = ("title", "description", "custom_data", "acl_upload", "volatile")
"""Fields of stages and of ordered indexes that stay what they were where the profile does not own them."""
EMPTY = Topology(users={ROOT: Node()})
"""What a server has after its first boot."""


class Kind(StrEnum):
    CREATE_USER = "create-user"
    MODIFY_USER = "modify-user"
    CREATE_INDEX = "create-index"
    MODIFY_INDEX = "modify-index"
    REMOVE_INDEX = "remove-index"
    REMOVE_USER = "remove-user"
    KEPT = "kept"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """``before`` is None where the server has no such field yet."""

    name: str
    before: Value | None
    after: Value

    @property
    def text(self) -> str:
        if self.before is None:
            return f"{self.name}={_shown(self.after)}"
        return f"{self.name} {_shown(self.before)} -> {_shown(self.after)}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One step towards the profile, or the word that none is needed. ``target`` is a user or a ``user/name``.

    ``reason``: why something that the profile does not name is kept all the same.
    """

    kind: Kind
    target: str
    fields: tuple[FieldChange, ...] = ()
    reason: str = ""

    @property
    def due(self) -> bool:
        """Whether there is anything to do."""
        return self.kind not in (Kind.KEPT, Kind.UNCHANGED)

    @property
    def values(self) -> dict[str, Value]:
        """What is to be sent to the server."""
        return {change.name: change.after for change in self.fields}

    @property
    def brief(self) -> str:
        """A few words for people: what became of it."""
        match self.kind:
            case Kind.CREATE_USER | Kind.CREATE_INDEX:
                return f"{self.target} created"
            case Kind.MODIFY_USER | Kind.MODIFY_INDEX:
                return f"{self.target}: {', '.join(change.text for change in self.fields)}"
            case Kind.REMOVE_INDEX | Kind.REMOVE_USER:
                return f"{self.target} removed"
            case Kind.KEPT | Kind.UNCHANGED:
                return f"{self.target} {self.kind}"

    @property
    def text(self) -> str:
        """One line for people; credentials inside addresses are masked."""
        noun = "index" if "/" in self.target else "user"
        details = ", ".join(change.text for change in self.fields)
        match self.kind:
            case Kind.CREATE_USER | Kind.CREATE_INDEX:
                return f"create {noun} {self.target}" + (f" with {details}" if details else "")
            case Kind.MODIFY_USER | Kind.MODIFY_INDEX:
                return f"modify {noun} {self.target}: {details}"
            case Kind.REMOVE_INDEX | Kind.REMOVE_USER:
                return f"remove {noun} {self.target}"
            case Kind.KEPT:
                why = f": {self.reason}" if self.reason else ""
                return f"keep {noun} {self.target}, which the profile does not name{why}"
            case Kind.UNCHANGED:
                return f"{noun} {self.target} unchanged"


def _shown(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return "[" + ", ".join(value) + "]"
        case str():
            return mask_url(value) or '""'
        case _:
            return str(value)


def changes(current: Topology, wanted: Topology) -> tuple[Change, ...]:
    """The steps that lead from ``current`` to ``wanted``, in an order that works; empty when all is as wanted.

    Raises as :func:`compare`.
    """
    return tuple(change for change in compare(current, wanted) if change.due)


def compare(current: Topology, wanted: Topology) -> tuple[Change, ...]:
    """Every user and index of either side with what is to become of it: users first, bases before what inherits.

    Raises ConflictError when an index has another type on the server (devpi can't change it), ProfileError
    when bases form a circle, and when a mirror is to be created and nobody knows of what.
    """
    return (
        *(_user_change(name, current.users.get(name), node) for name, node in wanted.users.items()),
        *(_index_change(name, current.indexes.get(name), wanted.indexes[name]) for name in bases_first(wanted.indexes)),
        *(Change(kind=Kind.KEPT, target=name) for name in sorted(current.users.keys() - wanted.users.keys() - {ROOT})),
        *(Change(kind=Kind.KEPT, target=name) for name in sorted(current.indexes.keys() - wanted.indexes.keys())),
    )


def prune(current: Topology, wanted: Topology, *, empty: Container[str]) -> tuple[Change, ...]:
    """What becomes of all that ``wanted`` does not name: the removals in an order that works, then what is kept.

    ``empty``: the indexes that are known to hold nothing. What holds something, is another's base or owns such an
    index is kept, with the reason.
    """
    bases = {name: _bases(node) for name, node in current.indexes.items()}
    bases |= {name: _bases(node) for name, node in wanted.indexes.items() if "bases" in node.fields}
    left = sorted(current.indexes.keys() - wanted.indexes.keys())
    steps: list[Change] = []
    # Each round takes away what nothing inherits from any more: at last only what must stay is left.
    while free := [name for name in left if name in empty and not _heirs(bases, name)]:
        for name in free:
            steps.append(Change(kind=Kind.REMOVE_INDEX, target=name))
            left.remove(name)
            del bases[name]
    owners = {name.partition("/")[0] for name in bases}
    users = sorted(current.users.keys() - wanted.users.keys() - {ROOT})
    steps += [Change(kind=Kind.REMOVE_USER, target=user) for user in users if user not in owners]
    steps += [Change(kind=Kind.KEPT, target=user, reason="owns an index") for user in users if user in owners]
    for name in left:
        heirs = _heirs(bases, name)
        reason = f"a base of {', '.join(heirs)}" if heirs else f"not empty (deployer index delete {name})"
        steps.append(Change(kind=Kind.KEPT, target=name, reason=reason))
    return tuple(steps)


def retyped(current: Topology, wanted: Topology) -> tuple[str, ...]:
    """The indexes that take uploads on the server and shall take them here, but are to be of another type."""
    both = sorted(current.indexes.keys() & wanted.indexes.keys())
    types = {name: (current.indexes[name].fields.get("type"), wanted.indexes[name].fields["type"]) for name in both}
    return tuple(name for name, kinds in types.items() if set(kinds) == {"stage", "ordered"})


def anew(current: Topology, wanted: Topology, names: Collection[str]) -> tuple[tuple[Change, ...], Topology, Topology]:
    """Make ``names`` again: the removals, and then both sides as they are after these. What the profile does not own
    of an index and both types have, is carried over."""
    removals = tuple(Change(kind=Kind.REMOVE_INDEX, target=name) for name in names)
    rest = {name: node for name, node in current.indexes.items() if name not in names}
    carried = {
        name: replace(node, initial=_carried(current.indexes[name], node)) if name in names else node
        for name, node in wanted.indexes.items()
    }
    return removals, replace(current, indexes=rest), replace(wanted, indexes=carried)


def _carried(have: Node, want: Node) -> dict[str, Value]:
    known = {name: have.fields[name] for name in _OF_BOTH if name in have.fields and name not in want.fields}
    return {**want.initial, **known}


def _heirs(bases: Mapping[str, tuple[str, ...]], base: str) -> tuple[str, ...]:
    return tuple(sorted(name for name, listed in bases.items() if base in listed and name != base))


def _user_change(name: str, have: Node | None, want: Node) -> Change:
    return _change(name, have, want, create=Kind.CREATE_USER, modify=Kind.MODIFY_USER)


def _index_change(name: str, have: Node | None, want: Node) -> Change:
    if have is None and want.fields["type"] == "mirror" and "mirror_url" not in {**want.initial, **want.fields}:
        raise ProfileError(
            f"index {name} has no url, and the server names no upstream of its own",
            hint=f"set indexes.{name}.url in the profile",
        )
    if have is not None and have.fields.get("type") != want.fields["type"]:
        raise ConflictError(
            f"index {name} is of type {have.fields.get('type')} on the server, the profile says {want.fields['type']}",
            hint="devpi can't change an index's type: --prune --yes makes it anew if nothing was uploaded to it; else "
            "give it another name in the profile",
        )
    return _change(name, have, want, create=Kind.CREATE_INDEX, modify=Kind.MODIFY_INDEX)


def _change(name: str, have: Node | None, want: Node, *, create: Kind, modify: Kind) -> Change:
    if have is None:
        values = {**want.fields, **want.initial}
        fields = tuple(FieldChange(name=key, before=None, after=value) for key, value in values.items())
        return Change(kind=create, target=name, fields=fields)
    fields = tuple(
        FieldChange(name=key, before=have.fields.get(key), after=value)
        for key, value in want.fields.items()
        if have.fields.get(key) != value
    )
    return Change(kind=modify if fields else Kind.UNCHANGED, target=name, fields=fields)


def bases_first(indexes: Mapping[str, Node]) -> tuple[str, ...]:
    """The names of indexes, each after all that it inherits from. Raises ProfileError when they form a circle."""
    graph = {name: [base for base in _bases(node) if base in indexes] for name, node in indexes.items()}
    try:
        return tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ProfileError(
            f"the bases of these indexes form a circle: {circle}", hint="take one of them out of `bases`"
        ) from None


def _bases(node: Node) -> tuple[str, ...]:
    bases = node.fields.get("bases", ())
    return bases if isinstance(bases, tuple) else ()


class Api(Protocol):
    """The part of :class:`deployer.devpi.api.DevpiApi` that :func:`apply` needs."""

    def put_user(self, name: str, fields: Mapping[str, Value], *, password: Secret) -> None: ...
    def patch_user(self, name: str, fields: Mapping[str, Value]) -> None: ...
    def put_index(self, name: str, fields: Mapping[str, Value]) -> None: ...
    def patch_index(self, name: str, fields: Mapping[str, Value]) -> None: ...
    def delete_user(self, name: str) -> None: ...
    def delete_index(self, name: str) -> None: ...


def apply(
    api: Api,
    changes: Iterable[Change],
    *,
    on_change: Callable[[Change], None],
    new_password: Callable[[str], Secret],
) -> None:
    """Do the steps in their order; ``on_change`` is called after each that is done.

    ``new_password`` gives the password of a user that is about to be created, and must have stored it when it
    returns: a run that is killed right after leaves no user whose password nobody knows.
    """
    for change in changes:
        match change.kind:
            case Kind.CREATE_USER:
                api.put_user(change.target, change.values, password=new_password(change.target))
            case Kind.MODIFY_USER:
                api.patch_user(change.target, change.values)
            case Kind.CREATE_INDEX:
                api.put_index(change.target, change.values)
            case Kind.MODIFY_INDEX:
                api.patch_index(change.target, change.values)
            case Kind.REMOVE_INDEX:
                # devpi deletes a volatile index only. What is removed here was declared by nobody and holds nothing.
                api.patch_index(change.target, {"volatile": True})
                api.delete_index(change.target)
            case Kind.REMOVE_USER:
                api.delete_user(change.target)
            case Kind.KEPT | Kind.UNCHANGED:
                continue
        on_change(change)
