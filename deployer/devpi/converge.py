"""From what a server has to what a profile declares, in as few requests as can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from deployer.devpi.topology import Change, Kind, Topology, anew, apply, compare, prune, retyped

if TYPE_CHECKING:
    from deployer.devpi.api import DevpiApi
    from deployer.secrets import Secret


def steps(api: DevpiApi, goal: Topology, *, removing: bool = False) -> tuple[Change, ...]:
    """What is to be done and what is left alone, asked of the server; nothing is changed.

    ``removing``: what ``goal`` does not name is to go, and what is of another type is to be made anew, both as far as
    it is empty. Raises as ``compare``.
    """
    current, fitting = api.topology(), goal.fit(api.dialect)
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
        (api.use if len(due) == 1 else api.login)("root", password())
    apply(api, due, on_change=lambda change: _forget(change, forget), new_password=new_password)
    return due


def _forget(change: Change, forget: Callable[[str], None]) -> None:
    if change.kind is Kind.REMOVE_USER:
        forget(change.target)
