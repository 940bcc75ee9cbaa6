"""JSON in C: the same values as Python reads and writes, and the same refusals."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.server.json_text import dumps, elements, loads, members

TEXTS = st.text(st.characters(exclude_categories=[]), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_values_are_those_of_pythons_json(value: Any, escaped: bool) -> None:
    text = json.dumps(value, ensure_ascii=escaped).encode(errors="surrogatepass")
    try:
        expected = json.loads(text.decode())
    except UnicodeDecodeError:  # half a surrogate pair, as bytes
        return
    assert loads(text) == expected
    written = dumps(value)
    assert b"\n" not in written
    assert loads(written) == json.loads(written) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b'"\xff"',
        b"[" * 100_000 + b"]" * 100_000,
        b"[1] x",
        b"[1,]",
    ],
    ids=lambda text: text[:12].decode(errors="replace"),
)
def test_what_is_no_json_is_refused(text: bytes) -> None:
    for read in (loads, members, elements):
        with pytest.raises(ValueError):
            read(text)


@pytest.mark.parametrize(
    "text", [b"18446744073709551616", b'"\\ud800"', '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf[1]"]
)
def test_what_only_python_reads_is_read(text: bytes) -> None:
    assert loads(text) == json.loads(text)


def test_parts_are_read_later() -> None:
    found = members(b'{"files": [{"a": 1}, "x"], "b": {"c": 1}, "b": 2}')
    assert (loads(found["b"]), [loads(one) for one in elements(found["files"])]) == (2, [{"a": 1}, "x"])
    with pytest.raises(ValueError):
        elements(found["b"])


def test_what_is_nested_too_deeply_is_not_written() -> None:
    nested: Any = "x"
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(RecursionError):
        dumps(nested)
