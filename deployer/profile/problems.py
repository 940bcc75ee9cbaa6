"""Problems of a profile: place, cause and cure, all at once and without secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from deployer.errors import ProfileError

MAX_TOLD = 25
"""The most problems that are shown: more have one common cause."""
_HINT = "`deployer profiles reference` shows every key"
_BLANK = "****"
_SCHEME = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]{0,20}:)?//")


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of a value: a line of a file, or (``line`` is 0) an option."""

    where: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}:{self.line}" if self.line else self.where


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One problem. ``message`` starts with its key, if there is one."""

    message: str
    hint: str = ""
    source: Source | None = None

    def __str__(self) -> str:
        return f"{self.source}: {self.message}" if self.source else self.message

    def _place(self) -> tuple[str, int]:
        return (self.source.where, self.source.line) if self.source else ("", 0)


def profile_error(problems: Iterable[Problem]) -> ProfileError:
    """The error for ``problems``, in the order of the text: a single one as it is, several as a list with cures."""
    told = sorted(dict.fromkeys(problems), key=Problem._place)
    if len(told) == 1:
        return ProfileError(str(told[0]), hint=told[0].hint or _HINT)
    lines = [f"{problem} ({problem.hint})" if problem.hint else str(problem) for problem in told[:MAX_TOLD]]
    count = f"{len(told)}" if len(told) <= MAX_TOLD else f"more than {MAX_TOLD}"
    return ProfileError(f"{count} problems in the profile", hint=_HINT, details=tuple(lines))


def masked(text: str) -> str:
    """Mask anything that could be credentials, in an address of any form.

    Stricter than the masking of logs: an invalid value has an unknown form, so everything up to the last ``@`` goes.
    """
    head, at, tail = text.rpartition("@")
    if not at or ":" not in head:
        return text
    scheme = _SCHEME.match(text)
    return f"{scheme.group() if scheme else ''}{_BLANK}@{tail}"


def shown(value: object) -> str:
    """Format ``value`` for messages: quoted, masked, shortened."""
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
    """The hint for a word similar to one of ``choices`` (or to its end, as ``dev`` of ``root/dev``), or ''."""
    if not 0 < len(word) <= 80:
        return ""
    known = list(choices)
    near = [choice for choice in known if choice.endswith("/" + word)]
    # Each comparison costs; a suggestion among thousands of names is of no use.
    near += difflib.get_close_matches(word, known[:200], n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
