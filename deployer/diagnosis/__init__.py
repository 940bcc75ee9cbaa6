"""Checks of this host and the server. Pure: a check takes facts and returns its level, evidence and cure.

A failure is what breaks the main job: to start the server here, and to install through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


class Fix(StrEnum):
    """What ``doctor --fix`` may do: only what loses no data."""

    CLOSE_STATE = "close-state"
    CLOSE_DATA = "close-data"
    REMOVE_LEFT_OVER = "remove-left-over"
    START = "start"


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check: level, evidence, and the cure as a command.

    ``fix``: the cure is safe to apply to ``target`` (a path, or a container's name).
    """

    name: str
    level: Level
    evidence: str
    cure: str = ""
    fix: Fix | None = None
    target: str = ""


def ok(name: str, evidence: str) -> Check:
    return Check(name=name, level=Level.OK, evidence=evidence)


def warning(name: str, evidence: str, *, cure: str = "", fix: Fix | None = None, target: str = "") -> Check:
    return Check(name=name, level=Level.WARNING, evidence=evidence, cure=cure, fix=fix, target=target)


def failure(name: str, evidence: str, *, cure: str = "", fix: Fix | None = None) -> Check:
    return Check(name=name, level=Level.FAILURE, evidence=evidence, cure=cure, fix=fix)


def size(number: float) -> str:
    """Format a size in decimal units, as df -H does: ``412 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
