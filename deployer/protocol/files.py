"""Files of the server directory, by their names."""

from __future__ import annotations

from enum import StrEnum
from typing import TypedDict

PRIVATE = ".deployer"
"""The directory, below the server directory, that belongs to deployer (0700)."""


class PrivateFile(StrEnum):
    """Files below ``PRIVATE`` (0600)."""

    ROOT_PASSWORD = "root-password"  # noqa: S105 - a file's name
    NEXT_ROOT_PASSWORD = "root-password.next"  # noqa: S105 - a file's name
    RESET_ROOT = "root-password.reset"
    SECRET = "secret"  # noqa: S105 - a file's name
    PROOF_KEY = "proof-key"
    CREDENTIALS = "credentials"
    FIRST_BOOT = "first-boot"
    RUNNING = "running"
    OFFLINE = "offline"
    MOVING = "moving"
    MOVED = "moved"
    FRONT = "front"
    ACCESS_LOG = "log/access.log"
    CHANGES = "log/changes.log"
    REFUSED = "log/refused.log"
    TEMPORARY = "tmp"
    NGINX = "run"
    NGINX_KNOWN = "nginx-known"
    STATISTICS = "statistics.json"
    MISSED = "missed.json"
    PAGES = "pages"
    UPSTREAM = "upstream"
    COMPANIONS = "companions"
    MALICIOUS = "malicious.json"
    INVENTORY = "inventory.sqlite"
    PINNED = "pinned.json"
    DECLARED = "declared.json"
    BACKUP = "backup.json"
    OWNERS = "owners"
    HISTORY = "history.json"
    LOCK = "lock"
    TLS = "tls.pem"
    SETTINGS = "settings"
    NEXT_SETTINGS = "settings.next"
    USED_BY = "used-by"
    SYNCED = "synced"
    DIVERGED = "diverged"
    PROMOTE = "promote.json"
    ARRIVED = "arrived"
    MEMBERS = "members.json"

    @property
    def relative(self) -> str:
        """The path below the server directory."""
        return f"{PRIVATE}/{self.value}"


CHANGE_LOGS = 10
"""Files that are kept of the log of changes, and of that of refusals: NAME, NAME.1 and so on, the newest first."""


class UpgradePath(StrEnum):
    """What an upgrade keeps in the server directory, below ``PRIVATE``.

    ``NEXT``: the new set of data; ``FORMER``: the sets that are kept; ``SWITCH``: present while sets change places;
    ``HELD``: commits are held back, and the old server can be stopped; ``PROGRESS``: how far a conversion is.
    """

    NEXT = f"{PRIVATE}/next"
    FORMER = f"{PRIVATE}/former"
    SWITCH = f"{PRIVATE}/switch.json"
    HELD = f"{PRIVATE}/held"
    PROGRESS = f"{PRIVATE}/progress"


NODEINFO = ".nodeinfo"
"""devpi's own file with the identity of the data."""


class NodeInfo(TypedDict):
    uuid: str
