"""Read JSON that another program, another version or an editor wrote, and check it by declared types."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, NotRequired, TypeVar, Union, cast, get_args, get_origin, get_type_hints, is_typeddict

T = TypeVar("T")
LARGEST = 1 << 63


def built(kind: type[T], value: object) -> T:
    """Return ``value``, parsed JSON, as the dataclass or TypedDict ``kind``; unknown keys are left out.

    A string may be used in a path and on a command line: it has no NUL and no unpaired surrogate. Raises ValueError
    when a field is missing, or is not of its declared type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__}: not an object")
    hints, required = _fields(cast("Any", kind))
    if missing := required - value.keys():
        raise ValueError(f"{kind.__name__}: no {', '.join(sorted(missing))}")
    found: dict[str, Any] = {key: _checked(hints[key], one) for key, one in value.items() if key in hints}
    return cast("T", found) if is_typeddict(kind) else kind(**found)


def _number(value: int | float) -> int | float:
    """Return ``value`` if arithmetic on it is safe. Raises ValueError."""
    if not -LARGEST < value < LARGEST:  # a NaN is not, either
        raise ValueError("not a finite number of 63 bits")
    return value


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """The types of the fields by name, and the names of those that have no default."""
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        # Not __required_keys__: with annotations that are text, it has the keys that are not required, too.
        told = get_type_hints(kind, include_extras=True)
        return hints, frozenset(name for name, hint in told.items() if get_origin(hint) is not NotRequired)
    free = {field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING}
    return {field.name: hints[field.name] for field in fields(kind)}, frozenset(free)


def _checked(hint: Any, value: Any) -> Any:
    """Return ``value`` as the type ``hint``. Raises ValueError."""
    origin, parts = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return value
    if is_dataclass(hint) or is_typeddict(hint):
        return built(cast("type[Any]", hint), value)
    if origin in (Union, types.UnionType):
        (kind,) = (part for part in parts if part is not types.NoneType)
        return None if value is None else _checked(kind, value)
    if origin in (tuple, list, Sequence) and isinstance(value, list):
        items = [_checked(parts[0], one) for one in value]
        return items if origin is list else tuple(items)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {_checked(parts[0], key): _checked(parts[1], one) for key, one in value.items()}
    if hint is float and type(value) in (int, float):
        return float(_number(value))
    if type(value) is not hint:
        raise ValueError(f"not a {hint}")
    if hint is int:
        return _number(value)
    if hint is str and "\0" in value:
        raise ValueError("a string with NUL")
    if hint is str:
        value.encode()  # raises UnicodeEncodeError
    return value
