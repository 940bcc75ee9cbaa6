"""What was changed since the profile was applied, and the last backup: files that the command line and the backup leave
in the server directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployer.protocol import LastBackup, parsed
from deployer.server.devpi.installed import inside


@dataclass(frozen=True)
class Difference:
    """``field``: empty where the index is gone."""

    index: str
    field: str = ""
    declared: str = ""
    found: str = ""


@dataclass(frozen=True)
class Drift:
    """``profile``: the one that was applied last; empty where nobody has told the server."""

    profile: str = ""
    differences: tuple[Difference, ...] = ()


def compared(
    profile: str, declared: Mapping[str, Mapping[str, Any]], configured: Mapping[str, Mapping[str, Any]]
) -> Drift:
    """Compare the declared fields with those of the indexes now; fields that the profile does not declare are free."""
    found = []
    for index, fields in sorted(declared.items()):
        if index not in configured:
            found.append(Difference(index))
            continue
        now = parsed(json.dumps(dict(configured[index]), default=list))
        found += [
            Difference(index, name, _words(value), _words(now.get(name)))
            for name, value in sorted(fields.items())
            if now.get(name) != value
        ]
    return Drift(profile, tuple(found))


def drift(xom: Any, path: Path) -> Drift:
    """The drift of this server; ``path``: what its profile declares."""
    declared = _read(path)
    if not isinstance(declared.get("profile"), str) or not isinstance(declared.get("indexes"), dict):
        return Drift()
    with xom.keyfs.read_transaction():
        configured = {
            f"{user.name}/{index}": config
            for user in xom.model.get_userlist()
            for index, config in inside().configured(user).items()
        }
        return compared(declared["profile"], declared["indexes"], configured)


def last_backup(path: Path) -> LastBackup | None:
    """The last backup that was completed; None without one."""
    found = _read(path)
    if not isinstance(found.get("name"), str) or not isinstance(found.get("created"), str):
        return None
    numbers = {key: found[key] if isinstance(found.get(key), int) else 0 for key in ("files", "lost")}
    return LastBackup(name=found["name"], created=found["created"], files=numbers["files"], lost=numbers["lost"])


def _read(path: Path) -> Mapping[str, Any]:
    """A file that is absent or damaged says nothing."""
    try:
        found = parsed(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "nothing"
    return "nothing" if value in (None, "", False) else "yes" if value is True else str(value)
