"""JSON read and written in C (msgspec), and in Python where msgspec refuses what JSON and Python allow.

Both give the same values: numbers of any length, half of a surrogate pair, UTF-16. A page may have 20,000 files, and
Python's own ``json.dumps`` took most of the time of one.
"""

from __future__ import annotations

import json
import math
from typing import Any, TypeVar

import msgspec

from deployer.protocol import parsed

T = TypeVar("T")
_SHOWN = 200
"""Characters of a number that a message shows."""
Raw = msgspec.Raw
"""A part of a JSON text that is not read yet."""
_members = msgspec.json.Decoder(dict[str, Raw])
_elements = msgspec.json.Decoder(list[Raw])


def loads(text: bytes | Raw) -> Any:
    """Parse JSON. Raises ValueError and nothing else; for ``NaN`` and infinite numbers, too."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return parsed(bytes(text), fraction=_finite)


def members(text: bytes | Raw) -> dict[str, Raw]:
    """The members of an object, each to be read later. Raises ValueError for anything else, and for what only
    :func:`loads` reads."""
    return _split(_members, text)


def elements(text: bytes | Raw) -> list[Raw]:
    """The elements of an array, as :func:`members`."""
    return _split(_elements, text)


def _split(decoder: msgspec.json.Decoder[T], text: bytes | Raw) -> T:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(found: Any) -> bytes:
    """JSON of one line, without spaces between. Raises RecursionError where too much is in one another."""
    try:
        return msgspec.json.encode(found)
    except UnicodeEncodeError:  # half a surrogate pair is escaped, by the same characters as in JSON
        text = json.dumps(found, ensure_ascii=False, separators=(",", ":"))
        return text.encode(errors="backslashreplace")


def _finite(text: str) -> float:
    """A number of JSON. Raises ValueError for one that JSON does not have, and Python would write."""
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text[:_SHOWN]} is not a number")
    return found
