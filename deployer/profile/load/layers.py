"""Merge trees: mappings key by key, lists replaced, with the last source of each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from deployer.profile.models import Profile
from deployer.profile.problems import Problem, Source, did_you_mean
from deployer.profile.strictyaml import KeyPath, Tree, dotted

_SCALARS = ("engine", "data")


class Stack:
    """Layers over the defaults, and the last source of each path."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"indexes": _default_indexes()}
        self.problems: list[Problem] = []
        self._sources: dict[KeyPath, Source] = {}

    def put(self, tree: Mapping[str, object], sources: Mapping[KeyPath, Source]) -> None:
        self._sources.update(sources)
        layer = {key: value for key, value in tree.items() if _says_something(key, value)}
        indexes, users = layer.get("indexes"), layer.get("users")
        if isinstance(users, Mapping):
            layer["users"] = {name: {} if value is None else value for name, value in users.items()}
        if isinstance(indexes, Mapping):
            for name in [name for name, value in indexes.items() if value is None]:
                self._take_away(name)
            layer["indexes"] = {name: value for name, value in indexes.items() if value is not None}
        merge(self.tree, layer)

    def _take_away(self, name: str) -> None:
        """``root/pypi: null`` removes an index that a lower layer declares."""
        below = self.tree.get("indexes")
        if not isinstance(below, dict) or below.pop(name, None) is None:
            path: KeyPath = ("indexes", name)
            hint = did_you_mean(name, below or ()) or "type: mirror, or type: stage"
            message = f"{dotted(path)}: has nothing below it, and no such index is there to take away"
            self.problems.append(Problem(message=message, hint=hint, source=self.source_of(path)))

    def source_of(self, path: KeyPath) -> Source | None:
        """The source of ``path``, or of the nearest one above it."""
        for length in range(len(path), 0, -1):
            source = self._sources.get(path[:length])
            if source is not None and not self._replaced(path[:length], source):
                return source
        return None

    def _replaced(self, path: KeyPath, source: Source) -> bool:
        """Drop the lines of list items once another layer has replaced the list."""
        above = self._sources.get(path[:-1])
        return isinstance(path[-1], int) and above is not None and above.where != source.where

    def leaf_sources(self) -> dict[str, str]:
        return {
            ".".join(map(str, path)): str(self._sources[path])
            for path, value in values(self.tree)
            if path in self._sources and not isinstance(value, Mapping)
        }


def _default_indexes() -> dict[str, Tree]:
    return {name: index.model_dump(exclude_none=True) for name, index in Profile().indexes.items()}


def _says_something(key: str, value: object) -> bool:
    """An empty section (all of it commented out, say) has no effect."""
    return value is not None or key in _SCALARS or key not in Profile.model_fields


def merge(into: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Put ``over`` over ``into``: mappings key by key, anything else replaced."""
    for key, value in over.items():
        below = into.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping) and not _retyped(below, value):
            merge(below, value)
        elif isinstance(value, Mapping):
            into[key] = {}
            merge(into[key], value)
        else:
            into[key] = value


def _retyped(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """An index of another type has other fields: the old ones are dropped."""
    return "type" in below and "type" in over and below["type"] != over["type"]


def nested(path: KeyPath, value: object) -> dict[str, Any]:
    """The tree that has ``value`` at ``path``, and nothing else."""
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]


def values(tree: Mapping[str, object], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Path and value of every mapping and leaf below ``tree``."""
    for key, value in tree.items():
        yield (*prefix, key), value
        if isinstance(value, Mapping):
            yield from values(value, (*prefix, key))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Dotted keys and values of the leaves; an empty mapping is a leaf."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
