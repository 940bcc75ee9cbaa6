"""Rules about what a mirror lets in, and the report of what they hold back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NotRequired, TypedDict

GUARD_KEYS = ("min_age", "min_age_exempt", "before", "unknown_age", "allow", "deny", "changed")
"""The attributes of a mirror index that are rules. A profile has the same keys."""


def rule_words(value: object) -> list[str] | None:
    """The requirements in a list or in a text with commas, also between versions; None for anything else."""
    if isinstance(value, str):
        value = re.split(r",(?!\s*[<>=!~])", value)
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        return None
    words = list(value)
    return [word.strip() for word in words if word.strip()] if all(isinstance(word, str) for word in words) else None


class Report(StrEnum):
    """What ``GET /+deployer/rules`` lists. ``HELD``: files of pages that are held back. ``POLICY``: stored files that
    are held back. ``CHANGES``: files that their upstream has replaced. ``FILES``: all files of one project."""

    HELD = "held"
    POLICY = "policy"
    CHANGES = "changes"
    FILES = "files"


class RuledFile(TypedDict):
    """A file of a mirror. ``rule``: the one that holds it back, else empty. ``until``: ISO 8601, None without an end.
    ``cached``: whether the file is stored."""

    mirror: str
    project: str
    filename: str
    version: str
    rule: str
    until: str | None
    reason: str
    cached: bool


class TakenOver(TypedDict):
    """A project of an ordered ``index`` that another base would serve ``now`` than at ``first``."""

    index: str
    project: str
    first: str
    now: str


class Accepted(TypedDict):
    """The answer of ``POST /+deployer/accept``."""

    index: str
    accepted: list[TakenOver]


class RulesAnswer(TypedDict):
    """``GET /+deployer/rules``. ``after``: where the next answer begins; empty at the end. ``taken``: with ``CHANGES``
    and ``FILES`` alone."""

    index: str
    files: list[RuledFile]
    after: str
    taken: NotRequired[list[TakenOver]]
