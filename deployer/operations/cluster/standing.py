"""How far the members of a cluster are, by asking each of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deployer.errors import DeployerError, NotReadyError
from deployer.protocol import MemberStatus, Refusal, parsed
from deployer.spec import State

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster, Member

STATUS = ("member", "status")
_PAUSE = 0.3
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A member with what it reports; ``status`` is None where it reports nothing, and ``why`` says why."""

    member: Member
    primary: bool
    status: MemberStatus | None = None
    why: str = ""

    @property
    def number(self) -> int:
        return self.member.number

    @property
    def ready(self) -> bool:
        return self.status is not None and self.status.synced and not self.status.errors

    @property
    def role(self) -> str:
        return self.status.role if self.status is not None else "primary" if self.primary else "replica"

    @property
    def text(self) -> str:
        """What is to know of it, in a few words."""
        if self.status is None:
            return f"{self.member.state}: {self.why}" if self.why else str(self.member.state)
        if self.status.errors:
            return self.status.errors[0]
        if self.status.synced:
            return "in sync" if self.role != "primary" else "serves"
        missing = f", {self.status.files_missing} files are missing" if self.status.files_missing else ""
        return f"at serial {self.status.serial} of {self.status.primary_serial}{missing}"

    @property
    def data(self) -> dict[str, Any]:
        """For ``--json``."""
        known = self.status.json if self.status is not None else {}
        return {
            **known,
            "number": self.number,
            "role": self.role,
            "state": str(self.member.state),
            "where": self.member.where,
            "ready": self.ready,
            "why": self.why,
        }


def standing(cluster: Cluster) -> tuple[Standing, ...]:
    """Ask all members. Raises EngineError when the place does not answer."""
    identity = cluster.identity()
    primary = identity.primary if identity is not None else 0
    found = cluster.members()
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        return tuple(pool.map(lambda member: _ask(cluster, member, primary=member.number == primary), found))


def one(cluster: Cluster, number: int) -> Standing:
    """Ask one member. Raises NotReadyError when there is none."""
    identity = cluster.identity()
    for member in cluster.members():
        if member.number == number:
            return _ask(cluster, member, primary=identity is not None and identity.primary == number)
    raise NotReadyError(f"there is no member {number}", hint="deployer up")


def _ask(cluster: Cluster, member: Member, *, primary: bool) -> Standing:
    if member.state is not State.RUNNING:
        return Standing(member=member, primary=primary, why=member.why)
    try:
        done = cluster.exec(member.number, STATUS)
        if done.returncode:
            refusal = Refusal.parse(done.stderr.splitlines())
            why = refusal.message if refusal else done.stderr.strip()[-300:]
            return Standing(member=member, primary=primary, why=why)
        return Standing(member=member, primary=primary, status=MemberStatus.parse(parsed(done.stdout)))
    except (DeployerError, ValueError) as error:
        return Standing(member=member, primary=primary, why=str(error))


def await_synced(
    cluster: Cluster,
    number: int,
    *,
    deadline: timedelta,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Standing:
    """Wait until a member is in sync. Raises NotReadyError."""
    return await_all(lambda: [one(cluster, number)], 1, deadline=deadline, clock=clock, sleep=sleep)[0]


def await_all(
    ask: Callable[[], Sequence[Standing]],
    size: int,
    *,
    deadline: timedelta,
    on_line: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Sequence[Standing]:
    """Wait until there are ``size`` members and all are in sync. Time begins anew whenever one gets further.

    A replica with much to copy takes long, and is not late while it copies. Raises NotReadyError.
    """
    seen: tuple[object, ...] = ()
    until = clock() + deadline.total_seconds()
    while True:
        found = ask()
        if len(found) >= size and all(standing.ready for standing in found):
            return found
        now = tuple(_progress(found))
        if now != seen:
            seen, until = now, clock() + deadline.total_seconds()
            on_line("; ".join(f"member {one.number} {one.text}" for one in found if not one.ready))
        if clock() > until or (len(found) >= size and _hopeless(found)):
            raise late(found, size)
        sleep(_PAUSE)


def _hopeless(found: Sequence[Standing]) -> bool:
    """Whether all that are not in sync have ended, and nobody starts them again."""
    return all(one.ready or one.member.state in (State.STOPPED, State.LOST) for one in found)


def _progress(found: Iterable[Standing]) -> Iterable[object]:
    for standing in found:
        status = standing.status
        yield standing.number, standing.ready, status and (status.serial, status.files_missing)


def late(found: Sequence[Standing], size: int) -> NotReadyError:
    """The error for members that are not in sync."""
    lines = tuple(f"member {one.number}: {one.text}" for one in found if not one.ready)
    if len(found) < size:
        lines = (*lines, f"{size - len(found)} of {size} members are not there")
    number = next((one.number for one in found if not one.ready), 0)
    return NotReadyError(
        f"not all members are in sync: {lines[0]}", hint=f"deployer logs --member {number}", details=lines[1:]
    )
