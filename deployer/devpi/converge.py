"""Bring a server to the topology that a profile declares, with few requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from deployer.devpi.change import Change, Kind
from deployer.devpi.difference import anew, compare, prune, retyped
from deployer.devpi.topology import ROOT, Topology

if TYPE_CHECKING:
    from deployer.devpi.api import DevpiApi
    from deployer.devpi.fields import Value
    from deployer.secrets import Secret


def steps(api: DevpiApi, goal: Topology, *, removing: bool = False) -> tuple[Change, ...]:
    """Compare the server with ``goal``; nothing is changed.

    ``removing``: remove users and indexes that ``goal`` does not name, and replace indexes of another type, where they
    are empty. Raises as ``compare``.
    """
    current, fitting = api.topology(), goal.fit(api.codec)
    if not removing:
        return compare(current, fitting)
    again = [name for name in retyped(current, fitting) if api.is_empty(name, current.indexes[name])]
    removals, current, fitting = anew(current, fitting, again)
    found = compare(current, fitting)
    unnamed = sorted(current.indexes.keys() - fitting.indexes.keys())
    empty = {name for name in unnamed if api.is_empty(name, current.indexes[name])}
    return (
        *removals,
        *(change for change in found if change.kind is not Kind.KEPT),
        *prune(current, fitting, empty=empty),
    )


def converge(
    api: DevpiApi,
    found: tuple[Change, ...],
    *,
    password: Callable[[], Secret],
    new_password: Callable[[str], Secret],
    forget: Callable[[str], None],
) -> tuple[Change, ...]:
    """Apply the due changes of ``found`` as root, and return them.

    ``password`` returns root's password and is called only for due changes; ``new_password`` as in ``apply``;
    ``forget`` is called with each removed user.
    """
    due = tuple(change for change in found if change.due)
    if due and not api.authenticated:
        # Checking a password costs the server a third of a second, once for a login and once for each request that
        # carries it: a single step needs no login of its own.
        (api.use if len(due) == 1 else api.login)(ROOT, password())
    apply(api, due, on_change=lambda change: _forget(change, forget), new_password=new_password)
    return due


def _forget(change: Change, forget: Callable[[str], None]) -> None:
    if change.kind is Kind.REMOVE_USER:
        forget(change.target)


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
    """Apply the changes in order; ``on_change`` is called after each.

    ``new_password`` returns the password of a user that is about to be created, already stored: a run that is killed
    right after leaves no user with an unknown password.
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
