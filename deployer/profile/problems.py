"""What is wrong with a profile, in words: where, what, and how to mend it; all of it at once, and no secret in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployer.errors import ProfileError

MAX_TOLD = 25
"""No more problems than this are told: whoever has that many has one cause for them."""
_HINT = "`deployer profiles reference` shows every key"
_BLANK = "****"
_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:)?//")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Who gave a value: a line of a file, or (``line`` is 0) an option."""

    where: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}:{self.line}" if self.line else self.where


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong. ``message`` starts with the key that it is about, if there is one."""

    message: str
    hint: str = ""
    source: Source | None = None

    def __str__(self) -> str:
        return f"{self.source}: {self.message}" if self.source else self.message

    def _place(self) -> tuple[str, int]:
        return (self.source.where, self.source.line) if self.source else ("", 0)


def profile_error(problems: Iterable[Problem]) -> ProfileError:
    """The error that tells ``problems`` in the order of the text: one as it is, several as a list with their cures."""
    told = sorted(dict.fromkeys(problems), key=Problem._place)
    if len(told) == 1:
        return ProfileError(str(told[0]), hint=told[0].hint or _HINT)
    lines = [f"{problem} ({problem.hint})" if problem.hint else str(problem) for problem in told[:MAX_TOLD]]
    count = f"{len(told)}" if len(told) <= MAX_TOLD else f"more than {MAX_TOLD}"
    return ProfileError(f"{count} problems in the profile", hint=_HINT, details=tuple(lines))


def masked(text: str) -> str:
    """``text`` without anything that could be the credentials of an address, however badly it is written.

    Stricter than what masks logs: a wrong value is wrong in unknown ways, so all up to the last ``@`` goes.
    """
    head, at, tail = text.rpartition("@")
    if not at or ":" not in head:
        return text
    scheme = _SCHEME.match(text)
    return f"{scheme.group() if scheme else ''}{_BLANK}@{tail}"


def shown(value: object) -> str:
    """``value`` as messages show it: quoted, masked, short."""
    match value:
        case str():
            text = masked(value)
            return repr(text if len(text) <= 80 else text[:80] + "…")
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return repr(value)[:80]


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The cure for a word that is nearly one of ``choices`` (or the end of one, as ``dev`` of ``root/dev``), or ''."""
    if not 0 < len(word) <= 80:
        return ""
    known = list(choices)
    near = [choice for choice in known if choice.endswith("/" + word)]
    # Each comparison costs; nobody means one of thousands of names.
    near += difflib.get_close_matches(word, known[:200], n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
