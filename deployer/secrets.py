"""Secrets as values that don't show themselves, and the masking of everything that is printed.

What is made of a :class:`Secret` is known to :func:`mask` for the life of this process, so a log line or an
error text that happens to hold it is blanked on its way out, whoever wrote it.
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
        # Masking very short or empty values would blank unrelated text without protecting anything.
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
    """A fresh random secret of 256 bits, URL-safe, that no program takes for an option when it stands alone."""
    from secrets import token_urlsafe

    while (text := token_urlsafe(32)).startswith("-"):
        pass
    return Secret(text)


def mask_url(text: str) -> str:
    """``text`` with the credentials of every URL in it blanked: ``https://****@host/``."""
    return _URL_CREDENTIALS.sub(rf"\g<scheme>{BLANK}@", text)


def mask(text: str) -> str:
    """``text`` with every secret known to this process, and the credentials of every URL, blanked."""
    # The longest first, so that a secret that contains another leaves no rest behind.
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, BLANK)
    return mask_url(text)
