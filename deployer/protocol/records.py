"""Records that one side leaves for the other: the applied profile, the last backup, requests in vain."""

from __future__ import annotations

from typing import Any, TypedDict


class Declared(TypedDict):
    """What the profile that was applied last declares. ``indexes``: declared fields by index, as devpi stores them.
    ``sha256``: of what was declared."""

    profile: str
    sha256: str
    indexes: dict[str, dict[str, Any]]


class LastBackup(TypedDict):
    """The last backup that was completed. ``created``: ISO 8601. ``lost``: files that the server had lost already."""

    name: str
    created: str
    files: int
    lost: int


class MissedIn(TypedDict):
    """How often clients asked an index for projects and for files that were not here."""

    projects: dict[str, int]
    files: dict[str, int]


class Missed(TypedDict):
    """What was asked for in vain since the server was switched offline. ``left_out``: requests beyond the limit."""

    since: str
    indexes: dict[str, MissedIn]
    left_out: int
