"""The changes from the actual to the wanted topology, in a valid order. Pure."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import replace

from deployer.devpi.change import Change, FieldChange, Kind
from deployer.devpi.fields import Value
from deployer.devpi.topology import ROOT, Node, Topology, bases_first
from deployer.errors import ConflictError, ProfileError

_OF_BOTH = ("title", "description", "custom_data", "acl_upload", "acl_read", "volatile")
"""Fields of stages and ordered indexes that are kept when an index is recreated and the profile does not own them."""


def changes(current: Topology, wanted: Topology) -> tuple[Change, ...]:
    """The changes from ``current`` to ``wanted``, in a valid order; empty when they are equal.

    Raises as :func:`compare`.
    """
    return tuple(change for change in compare(current, wanted) if change.due)


def compare(current: Topology, wanted: Topology) -> tuple[Change, ...]:
    """Compare every user and index: users first, bases before the indexes that inherit from them.

    Raises ConflictError when an index has another type on the server (devpi can't change it), ProfileError
    for circular bases, and for a new mirror without an upstream.
    """
    return (
        *(_user_change(name, current.users.get(name), node) for name, node in wanted.users.items()),
        *(_index_change(name, current.indexes.get(name), wanted.indexes[name]) for name in bases_first(wanted.indexes)),
        *(Change(kind=Kind.KEPT, target=name) for name in sorted(current.users.keys() - wanted.users.keys() - {ROOT})),
        *(Change(kind=Kind.KEPT, target=name) for name in sorted(current.indexes.keys() - wanted.indexes.keys())),
    )


def prune(current: Topology, wanted: Topology, *, empty: Container[str]) -> tuple[Change, ...]:
    """The removals of users and indexes that ``wanted`` does not name, in a valid order, then those that are kept.

    ``empty``: indexes that are known to be empty. An index that is not empty or is a base of a kept one is kept, and
    so is its user; with the reason.
    """
    bases = {name: node.bases for name, node in current.indexes.items()}
    bases |= {name: node.bases for name, node in wanted.indexes.items() if "bases" in node.fields}
    left = sorted(current.indexes.keys() - wanted.indexes.keys())
    steps: list[Change] = []
    # Each round removes indexes without heirs, until only those that must stay are left.
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
    """The indexes that change their type between stage and ordered."""
    both = sorted(current.indexes.keys() & wanted.indexes.keys())
    types = {name: (current.indexes[name].fields.get("type"), wanted.indexes[name].fields["type"]) for name in both}
    return tuple(name for name, kinds in types.items() if set(kinds) == {"stage", "ordered"})


def anew(current: Topology, wanted: Topology, names: Collection[str]) -> tuple[tuple[Change, ...], Topology, Topology]:
    """Recreate ``names``: the removals, and both sides after them. Fields that both types have and the profile does not
    own are carried over."""
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
