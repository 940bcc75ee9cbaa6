"""Secrets that are never printed by accident, and the masking of all output.

:func:`mask` knows every :class:`Secret` of this process, and blanks it in log lines and error messages.
"""

from __future__ import annotations

import re

BLANK = "****"
_known: set[str] = set()
_URL_CREDENTIALS = re.compile(r"(?P<scheme>(?<![a-zA-Z0-9+.-])[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)[^/\s'\"]+@")


class Secret:
    """A value that ``repr``, ``str`` and ``format`` never show; :meth:`reveal` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        # Masking a very short value would blank unrelated text and protect nothing.
        if len(value) >= 6:
            _known.add(value)

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return f"Secret({BLANK})"

    def __str__(self) -> str:
        return BLANK

    def __eq__(self, other: object) -> bool:
        from hmac import compare_digest

        return isinstance(other, Secret) and compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __bool__(self) -> bool:
        return bool(self._value)


def generate() -> Secret:
    """A random URL-safe secret of 256 bits that does not start with a dash, so no program reads it as an option."""
    from secrets import token_urlsafe

    while (text := token_urlsafe(32)).startswith("-"):
        pass
    return Secret(text)


def mask_url(text: str) -> str:
    """``text`` with the credentials of every URL in it blanked: ``https://****@host/``."""
    return _URL_CREDENTIALS.sub(rf"\g<scheme>{BLANK}@", text)


def mask(text: str) -> str:
    """``text`` with every secret known to this process, and the credentials of every URL, blanked."""
    # The longest first: a secret may contain another.
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, BLANK)
    return mask_url(text)
