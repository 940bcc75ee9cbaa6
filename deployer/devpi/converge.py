"""From what a server has to what a profile declares, in as few requests as can be."""

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
    """What is to be done and what is left alone, asked of the server; nothing is changed.

    ``removing``: what ``goal`` does not name is to go, and what is of another type is to be made anew, both as far as
    it is empty. Raises as ``compare``.
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
    """Do what of ``found`` is due, as root; returns that.

    ``password`` gives root's, and is asked only when there is something to do; ``new_password`` as of ``apply``;
    ``forget`` is told of each user that is gone.
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
