"""Read the log of changes of a deployment."""

from __future__ import annotations

import contextlib

from deployer.deployment.find import Deployment
from deployer.protocol import Change, PrivateFile, parsed
from deployer.typed import built


def read(deployment: Deployment, *, changes: bool, refused: bool) -> list[Change]:
    """What was changed, what was refused, or both in the order of time; lines that can't be parsed are left out.

    Raises Refused, ConflictError, EngineError.
    """
    place = deployment.server_dir
    logs = [log for log, wanted in ((PrivateFile.CHANGES, changes), (PrivateFile.REFUSED, refused)) if wanted]
    found: list[Change] = []
    for line in (line for log in logs if place is not None for line in place.changes(log)):
        with contextlib.suppress(ValueError):
            found.append(built(Change, parsed(line)))
    return sorted(found, key=lambda change: change["time"])


def row(change: Change) -> tuple[str, ...]:
    """One change as a row for people: time, user, client, action, target and details."""
    refused = f"refused ({change['status']}): " if change["status"] in (401, 403) else ""
    what = " ".join(part for part in (change["target"], ", ".join(change["details"])) if part)
    return (change["time"][:19] + "Z", change["user"] or "-", change["client"], f"{refused}{change['action']}", what)
