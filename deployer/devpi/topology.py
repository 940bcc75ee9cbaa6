"""Users and indexes: what the server has, what the profile wants, and the steps from one to the other.

Everything but :func:`apply` is pure. Fields are called as devpi-server 6 calls them; a :class:`Dialect`
translates for a server that spells them otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Protocol

from deployer.errors import ConflictError, ProfileError
from deployer.secrets import mask_url

if TYPE_CHECKING:
    from deployer.profile import Index as ProfileIndex
    from deployer.profile import User as ProfileUser
    from deployer.secrets import Secret

Value = str | int | bool | tuple[str, ...]
ROOT = "root"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return value


def _number(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(f"expected a number, got {value!r}")
    return int(value)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "yes": True, "false": False, "no": False}  # what devpi takes
    try:
        return known[_text(value).lower()]
    except KeyError:
        raise ValueError(f"expected true or false, got {value!r}") from None


def _names(value: object) -> tuple[str, ...]:
    if isinstance(value, str):  # devpi takes and old data may hold "a,b"
        return tuple(part for part in (word.strip() for word in value.split(",")) if part)
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError(f"expected a list of names, got {value!r}")
    return tuple(_text(item) for item in value)


def _acl(value: object) -> tuple[str, ...]:
    special = {":ANONYMOUS:", ":AUTHENTICATED:"}  # devpi stores these two in capitals, the order has no meaning
    return tuple(sorted({name.upper() if name.upper() in special else name for name in _names(value)}))


def _projects(value: object) -> tuple[str, ...]:
    # PEP 503's normal form, which devpi stores; "*" stands for every project.
    return tuple(sorted({re.sub(r"[-_.]+", "-", name).lower() for name in _names(value)}))


INDEX_FIELDS: Mapping[str, Callable[[object], Value]] = {
    "type": _text,
    "title": _text,
    "volatile": _flag,
    "mirror_url": _text,
    "mirror_cache_expiry": _number,
    "mirror_no_project_list": _flag,
    "bases": _names,
    "acl_upload": _acl,
    "acl_toxresult_upload": _acl,
    "mirror_whitelist": _projects,
}
"""Every field that a profile can own, with the form in which devpi stores its values."""
USER_FIELDS: Mapping[str, Callable[[object], Value]] = {"email": _text, "title": _text}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How one version of devpi-server spells index fields and index types; what is left out is as in version 6."""

    fields: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)

    def encode(self, fields: Mapping[str, Value]) -> dict[str, object]:
        """Our fields as a JSON object for this server."""
        return {
            self.fields.get(name, name): list(value) if isinstance(value, tuple) else self._type(name, value)
            for name, value in fields.items()
        }

    def decode(self, raw: Mapping[str, object]) -> dict[str, Value]:
        """The fields that a profile can own, normalised, out of what the server tells of an index.

        Raises ValueError when a value is not of its field's kind.
        """
        ours = {theirs: name for name, theirs in self.fields.items()}
        types = {theirs: name for name, theirs in self.types.items()}
        known = {ours.get(key, key): value for key, value in raw.items()}
        fields = {name: read(known[name]) for name, read in INDEX_FIELDS.items() if name in known}
        if isinstance(kind := fields.get("type"), str):
            fields["type"] = types.get(kind, kind)
        return fields

    def _type(self, name: str, value: Value) -> Value:
        return self.types.get(value, value) if name == "type" and isinstance(value, str) else value


DEVPI_6 = Dialect()


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
    def parse(cls, raw: Mapping[str, object], *, dialect: Dialect = DEVPI_6) -> Topology:
        """What ``GET /`` of devpi tells. Raises ValueError when that is not its shape."""
        users: dict[str, Node] = {}
        indexes: dict[str, Node] = {}
        for user, config in raw.items():
            if not isinstance(config, dict) or not isinstance(config.get("indexes", {}), dict):
                raise ValueError(f"expected a user's configuration, got {config!r}")
            known = {name: read(config[name]) for name, read in USER_FIELDS.items() if name in config}
            users[user] = Node(fields=known)
            for name, index in config.get("indexes", {}).items():
                if not isinstance(index, dict):
                    raise ValueError(f"expected an index's configuration, got {index!r}")
                indexes[f"{user}/{name}"] = Node(fields=dialect.decode(index))
        return cls(users=users, indexes=indexes)


EMPTY = Topology(users={ROOT: Node()})
"""What a server has after its first boot."""


class Kind(StrEnum):
    CREATE_USER = "create-user"
    MODIFY_USER = "modify-user"
    CREATE_INDEX = "create-index"
    MODIFY_INDEX = "modify-index"
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
    """One step towards the profile, or the word that none is needed. ``target`` is a user or a ``user/name``."""

    kind: Kind
    target: str
    fields: tuple[FieldChange, ...] = ()

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
            case Kind.KEPT:
                return f"keep {noun} {self.target}, which the profile does not name"
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


def wanted(
    users: Mapping[str, ProfileUser], indexes: Mapping[str, ProfileIndex], *, default_mirror_url: str
) -> Topology:
    """What a profile declares, as far as it owns it.

    ``default_mirror_url`` (may be empty) is given to a mirror without ``url`` when it is created; one that
    exists keeps what it has. The owner of an index is wanted too, whether it is listed or not.
    """
    nodes = {name: Node(fields=_user_fields(user)) for name, user in users.items()}
    for owner in (name.partition("/")[0] for name in indexes):
        if owner != ROOT:
            nodes.setdefault(owner, Node())
    mirrors = {n: _mirror(i, default_mirror_url) for n, i in indexes.items() if i.type == "mirror"}
    stages = {n: _stage(i) for n, i in indexes.items() if i.type == "stage"}
    return Topology(users=nodes, indexes={name: (mirrors | stages)[name] for name in indexes})


def _user_fields(user: ProfileUser) -> dict[str, Value]:
    # devpi removes a field that is set to nothing, so an empty one can't be told from one that is not owned.
    return {name: value for name, value in (("email", user.email), ("title", user.title)) if value}


def _mirror(index: ProfileIndex, default_url: str) -> Node:
    fields = _owned(
        type="mirror",
        title=index.title,
        volatile=index.volatile,
        mirror_url=index.url or None,
        mirror_cache_expiry=index.cache_expiry,
        mirror_no_project_list=None if index.project_list is None else not index.project_list,
    )
    # The list of all names is tens of megabytes, and devpi-web asks for it as soon as the index exists:
    # switching it off later is too late.
    defaults = _owned(mirror_url=default_url or None, mirror_no_project_list=True)
    return Node(fields=fields, initial={name: value for name, value in defaults.items() if name not in fields})


def _stage(index: ProfileIndex) -> Node:
    fields = _owned(
        type="stage",
        title=index.title,
        volatile=index.volatile,
        bases=index.bases,
        acl_upload=index.acl_upload,
        # devpi's own default lets anonymous clients write test results into the data directory.
        acl_toxresult_upload=(),
        mirror_whitelist=index.mirror_whitelist,
    )
    # Empty is what keeps a public package from replacing a private one of the same name.
    return Node(fields=fields, initial={} if "mirror_whitelist" in fields else {"mirror_whitelist": ()})


def _owned(**fields: Value | None) -> dict[str, Value]:
    return {name: INDEX_FIELDS[name](value) for name, value in fields.items() if value is not None}


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
        *(
            _index_change(name, current.indexes.get(name), wanted.indexes[name])
            for name in _bases_first(wanted.indexes)
        ),
        *(Change(kind=Kind.KEPT, target=name) for name in sorted(current.users.keys() - wanted.users.keys() - {ROOT})),
        *(Change(kind=Kind.KEPT, target=name) for name in sorted(current.indexes.keys() - wanted.indexes.keys())),
    )


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
            hint="devpi can't change an index's type: give it another name in the profile, or delete it by hand",
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


def _bases_first(indexes: Mapping[str, Node]) -> tuple[str, ...]:
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
            case Kind.KEPT | Kind.UNCHANGED:
                continue
        on_change(change)
