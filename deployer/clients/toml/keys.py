"""Addresses of values in a TOML document, on plain dicts and on tomlkit's documents alike. Pure.

``pypi.url`` is a key of a table; ``index[default=true].url`` is one of the row of an array of tables that has
``default = true``, which is added if there is none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, MutableMapping
from functools import cache
from typing import Any, NamedTuple

_STEP = re.compile(r"([\w-]+)(?:\[([\w-]+)=([\w-]+)\])?(?:\.|\Z)")


class Step(NamedTuple):
    """One part of an address; ``where``: the key and value that pick a row."""

    name: str
    where: tuple[str, str | bool] | None


class Make(NamedTuple):
    """What new tables, arrays of tables and their rows are made of."""

    table: Callable[[], Any]
    rows: Callable[[], Any]
    row_of: Callable[[Any], Any]
    """A new row for an array that is there."""


PLAIN = Make(dict, list, lambda rows: {})


class NotATable(Exception):
    """Something else stands where a table is needed."""


@cache
def steps(key: str) -> tuple[Step, ...]:
    """Parse an address. Raises ValueError for what is none."""
    found = tuple(
        Step(name, (by, True if value == "true" else value) if by else None) for name, by, value in _STEP.findall(key)
    )
    if "".join(match[0] for match in _STEP.finditer(key)) != key:
        raise ValueError(key)
    return found


def get(document: Any, key: str) -> Any:
    """The value at ``key``; ``None`` when there is none."""
    for step in steps(key):
        document = _child(document, step)
    return document


def put(document: Any, key: str, value: str, make: Make = PLAIN) -> None:
    """Set the value at ``key``; make the tables that are missing. Raises NotATable."""
    _put(document, steps(key), value, make)


def restore(document: Any, key: str, former: Any) -> None:
    """Make ``key`` as it is in ``former``; remove the tables that then hold nothing and were not there, either."""
    if get(document, key) is not None:
        _restore(document, steps(key), former)


def _child(node: Any, step: Step) -> Any:
    if not isinstance(node, Mapping):
        return None
    found = node.get(step.name)
    if step.where is None or not isinstance(found, list):
        return found if step.where is None else None
    return next((row for row in found if _matches(row, step)), None)


def _matches(row: Any, step: Step) -> bool:
    return isinstance(row, Mapping) and step.where is not None and row.get(step.where[0]) == step.where[1]


def _put(node: Any, path: tuple[Step, ...], value: str, make: Make) -> None:
    if not isinstance(node, MutableMapping):
        raise NotATable
    step, rest = path[0], path[1:]
    child = _child(node, step)
    if not rest:
        node[step.name] = value
    elif child is not None:
        _put(child, rest, value, make)
    elif step.where is None:
        table = make.table()
        _put(table, rest, value, make)
        node[step.name] = table
    else:
        rows = node.get(step.name)
        if rows is not None and not isinstance(rows, list):
            raise NotATable
        row = make.table() if rows is None else make.row_of(rows)
        row[step.where[0]] = step.where[1]
        _put(row, rest, value, make)
        if rows is None:
            rows = make.rows()
            rows.append(row)
            node[step.name] = rows
        else:
            rows.append(row)


def _restore(node: Any, path: tuple[Step, ...], former: Any) -> None:
    step, rest = path[0], path[1:]
    before = _child(former, step)
    if not rest:
        if before is not None:
            node[step.name] = before
        else:
            del node[step.name]
        return
    child = _child(node, step)
    _restore(child, rest, before)
    if before is not None or child != (dict([step.where]) if step.where else {}):
        return
    if step.where is None:
        del node[step.name]
        return
    rows = node[step.name]
    del rows[next(at for at, row in enumerate(rows) if _matches(row, step))]
    if not rows and not (isinstance(former, Mapping) and step.name in former):
        del node[step.name]
