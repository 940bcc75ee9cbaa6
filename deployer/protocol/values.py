"""Values of others, checked by type and form before they are used: JSON, names, hosts, digests, sizes, times."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``512`` or ``64m``, with a unit b, k, m or g. Raises ValueError."""
    unit = text[-1:].lower()
    number = int(text[:-1]) * _UNITS[unit] if unit in _UNITS else int(text)
    if number < 1:
        raise ValueError(f"invalid size: {text}")
    return number


_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"0|([1-9][0-9]{0,4})([smhdw])")


def parse_span(text: str) -> int:
    """Seconds of a time such as ``36h`` or ``7d``, with a unit s, m, h, d or w; ``0`` for none. Raises ValueError."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ValueError(f"invalid time: {text}")
    return int(found[1]) * _SPANS[found[2]] if found[1] else 0


def parsed(text: str | bytes, *, fraction: Callable[[str], float] | None = None) -> Any:
    """Parse JSON; it may be nested too deeply for Python. Raises ValueError and nothing else.

    ``fraction``: reads numbers with a fraction or an exponent, and Python's ``NaN`` and ``Infinity``.
    """
    try:
        return json.loads(text, parse_float=fraction, parse_constant=fraction)
    except RecursionError:
        raise ValueError("nested too deeply") from None


_INDEX_NAME = re.compile(r"[^\s/:+]{1,100}/[^\s/:+]{1,100}")
_PROJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,250}[a-z0-9])?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether this is a SHA-256 in lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def is_index_name(text: str) -> bool:
    """Whether this is a plain ``USER/INDEX``."""
    return _INDEX_NAME.fullmatch(text) is not None


def is_project_name(text: str) -> bool:
    """Whether this is a project's normalised name."""
    return _PROJECT_NAME.fullmatch(text) is not None


_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?")


def is_host(text: object) -> bool:
    """Whether it is the name of a host in lower case, with or without a port."""
    return isinstance(text, str) and _HOST.fullmatch(text) is not None


def text_of(value: object) -> str | None:
    return value if isinstance(value, str) else None


def is_plain(name: str) -> bool:
    return name.isprintable() and len(name) < 300


def flag_of(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def number_of(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63
    return value if isinstance(value, int) and whole else None
