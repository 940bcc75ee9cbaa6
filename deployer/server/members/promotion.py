"""A replica becomes the primary: an order in its directory, which its next start as the primary takes.

The order is written while the replica runs and its primary does not answer: two primaries would take different writes.
A primary that answers again makes it void. The start replaces devpi's record of what the server is, in one step: from
then on it has the uuid of the former primary, so the other replicas go on with it. A kill may interrupt any step; the
next start finishes it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployer.protocol import NODEINFO, ExitCode, MemberStatus, PrivateFile, Refusal, parsed
from deployer.server.devpi import stored
from deployer.server.members.role import PRIMARY, REPLICA, Role, nodeinfo, uuid_of
from deployer.server.secret_files import Private, read_text, remove, write_private

SILENCE = 15.0
"""Seconds within which a replica notes that its primary has stopped."""
NAMED = 10
"""Uploads that are named when they are missing."""
_OF_A_REPLICA = ("masterurl", "master-uuid", "primary-uuid")


@dataclass(frozen=True, kw_only=True)
class Order:
    """``uuid``: of the primary's data. ``serial``: which the replica had."""

    uuid: str
    serial: int

    @classmethod
    def read(cls, private: Private) -> Order | None:
        """The order that waits; None without a valid one."""
        try:
            found = parsed(read_text(private.promote) or "")
            return cls(uuid=str(found["uuid"]), serial=int(found["serial"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def order(serverdir: Path, ask: Callable[[Path], MemberStatus], *, even_if_behind: bool) -> dict[str, Any]:
    """Order the replica that runs on ``serverdir`` to become the primary at its next start; what is lost by that.

    ``ask``: what a member reports. Raises Refusal.
    """
    private = Private.of(serverdir)
    found = _silent(serverdir, ask)
    behind = found.primary_serial - found.serial if found.primary_serial >= 0 else None
    missing = missing_uploads(serverdir)
    if not even_if_behind and (behind != 0 or missing):
        raise Refusal(
            f"it lacks {_what(found, behind, missing)}",
            hint="promote the member with the highest serial, or accept the loss: --even-if-behind",
            code=ExitCode.CONFLICT,
        )
    write_private(private.promote, json.dumps(asdict(Order(uuid=found.uuid, serial=found.serial))))
    return {
        "number": found.number,
        "uuid": found.uuid,
        "serial": found.serial,
        "primary_serial": found.primary_serial,
        "commits_lost": behind,
        "uploads_missing": len(missing),
        "missing": missing[:NAMED],
    }


def _silent(serverdir: Path, ask: Callable[[Path], MemberStatus]) -> MemberStatus:
    """What a replica reports once its primary does not answer. Raises Refusal."""
    deadline = time.monotonic() + SILENCE
    while True:
        found = ask(serverdir)
        if found.role != REPLICA:
            raise Refusal(f"this member is a {found.role} already", hint="promote a replica", code=ExitCode.CONFLICT)
        if (diverged := read_text(Private.of(serverdir).diverged)) is not None:
            raise Refusal(
                f"this member has other data than its primary: {diverged}",
                hint="promote another member",
                code=ExitCode.CONFLICT,
            )
        if not found.uuid:
            raise Refusal(
                "this member has no data of a primary yet", hint="promote another member", code=ExitCode.CONFLICT
            )
        if not found.primary_answers:
            return found
        if time.monotonic() > deadline:
            raise Refusal(
                "the primary still answers, and two primaries would take different writes",
                hint="stop the primary, and try again",
                code=ExitCode.CONFLICT,
            )
        time.sleep(0.2)


def _what(found: MemberStatus, behind: int | None, missing: list[str]) -> str:
    if behind is None:
        said = f"what nobody knows: it has {found.serial} commits, and has not heard of its primary since its start"
    else:
        said = f"{behind} commits of its primary (it has {found.serial} of {found.primary_serial})"
    return f"{said}, and the files of {len(missing)} uploads, such as {missing[0]}" if missing else said


def missing_uploads(serverdir: Path) -> list[str]:
    """The uploads that the database lists, and whose files are not here. Raises Refusal."""
    files = serverdir / "+files"
    with stored.connect(stored.database(serverdir)) as connection:
        return sorted(
            file.path for file in stored.stored(connection) if not file.mirror and not (files / file.path).exists()
        )


def is_ordered(serverdir: Path) -> bool:
    return Order.read(Private.of(serverdir)) is not None


def take(serverdir: Path, role: Role) -> bool:
    """Make the data those of the primary, if that is ordered and this server is to be it; whether it was.

    The directory is locked. Raises Refusal, OSError.
    """
    private = Private.of(serverdir)
    ordered = Order.read(private)
    if ordered is None or not role.is_primary:
        return False
    found = nodeinfo(serverdir)
    if found.get("role") == REPLICA:
        if ordered.uuid != uuid_of(found):
            raise Refusal(
                f"the order to promote this member is for the data {ordered.uuid}, and it has {uuid_of(found)}",
                hint=f"remove {private.promote}",
                code=ExitCode.CONFLICT,
            )
        kept = {key: value for key, value in found.items() if key not in _OF_A_REPLICA}
        write_private(serverdir / NODEINFO, json.dumps({**kept, "uuid": ordered.uuid, "role": PRIMARY}, indent=2))
    for directory in (private.arrived, private.directory / PrivateFile.PAGES):
        shutil.rmtree(directory, ignore_errors=True)
    remove(private.synced)
    remove(private.promote)
    return True
