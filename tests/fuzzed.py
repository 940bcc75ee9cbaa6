"""What others may have written: JSON of any shape, and whole documents with a part of them changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

LEAVES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["", "\0", "\ud800", "\udc80", "../..", "-v", "1\n2", "\x1b[2J", "9" * 5000, "/", "::1"])
)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
DEEP = st.sampled_from(
    [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b"NaN", b"1e999", b"\xff\xfe", b"\xef\xbb\xbf{}"]
)
"""Documents that exceed a limit of a parser, or are not UTF-8."""


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each value in a tree of JSON."""
    yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _places(value, (*path, key))


def _changed(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of ``tree`` with ``value`` at ``path``."""
    if not path:
        return value
    copy = deepcopy(tree)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def changed(*documents: Any) -> st.SearchStrategy[Any]:
    """One of ``documents`` with one to three of its values replaced by any JSON."""

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        tree = draw(st.sampled_from(documents))
        for _ in range(draw(st.integers(1, 3))):
            tree = _changed(tree, draw(st.sampled_from(list(_places(tree)))), draw(JSON))
        return tree

    return change()


def written(*documents: Any) -> st.SearchStrategy[bytes]:
    """The bytes of a file: such a document, one that is cut off, or no document at all."""
    whole = changed(*documents).map(json.dumps).map(str.encode)
    cut = st.tuples(whole, st.integers(0, 200)).map(lambda pair: pair[0][: -pair[1] or None])
    return whole | cut | DEEP | st.binary(max_size=40) | JSON.map(json.dumps).map(str.encode)
