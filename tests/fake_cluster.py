"""A place for the members of a cluster that is in memory alone, as the contract of places asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

from deployer.clusters.base import Identity, Member, PlaceName, Wanted
from deployer.errors import ConflictError, Refused
from deployer.protocol import MemberStatus
from deployer.secrets import Secret
from deployer.spec import ExecResult, State

UUID = "0" * 32


@dataclass
class FakeMember:
    """``role``: with which it was started last. ``serial``: of its last commit."""

    state: State = State.RUNNING
    role: str = "replica"
    serial: int = 2
    errors: tuple[str, ...] = ()
    ordered: bool = False
    number_of_data: int = 0
    """Which data it has: another one after each renewal."""


@dataclass
class FakeCluster:
    """``done``: each effect, in order. ``refusal``: of an order to promote a member."""

    place: PlaceName = PlaceName.HOST
    there: dict[int, FakeMember] = field(default_factory=dict)
    volumes: set[int] = field(default_factory=set)
    kept: Identity | None = None
    applied: Wanted | None = None
    done: list[str] = field(default_factory=list)
    refusal: str = ""
    lost: int = 0

    def probe(self) -> str:
        return "fake 1"

    def identity(self) -> Identity | None:
        return self.kept

    def differences(self, wanted: Wanted) -> tuple[str, ...]:
        missing = (number for number in range(wanted.size) if number not in self.there)
        resting = (number for number, one in self.there.items() if one.state is not State.RUNNING)
        surplus = (number for number in self.there if number >= wanted.size)
        roles = (number for number, one in self.there.items() if one.role != self._role(wanted, number))
        due = [
            *(f"member {number}: start it" for number in missing),
            *(f"member {number}: start it again" for number in resting),
            *(f"member {number}: remove it" for number in surplus),
            *(f"member {number}: another role" for number in roles),
        ]
        changed = self.applied is not None and self.applied.profile != wanted.profile
        return (*due, *(["settings"] if changed and not due else []))

    @staticmethod
    def _role(wanted: Wanted, number: int) -> str:
        return "primary" if number == wanted.identity.primary else "replica"

    def apply(self, wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        if not self.differences(wanted):
            return False
        self.kept = self.kept or Identity()
        for number in range(wanted.size):
            former = self.there.get(number, FakeMember(role=""))
            role = self._role(wanted, number)
            if former.role == "primary" and role == "replica":
                former = replace(former, state=State.STOPPED)  # its data are another's: it waits to be renewed
            elif former.role != role or former.state is not State.RUNNING:
                former = replace(former, role=role, state=State.RUNNING)
                self.done.append(f"start {number} {role}")
                on_line(f"member {number}")
            self.there[number] = former
            self.volumes.add(number)
        for number in [number for number in self.there if number >= wanted.size]:
            del self.there[number]
        self.applied = wanted
        return True

    def remember(self, identity: Identity) -> None:
        self.done.append(f"remember {identity.primary}")
        self.kept = identity

    def members(self) -> tuple[Member, ...]:
        return tuple(
            Member(number=number, name=f"m{number}", state=one.state, where=f"fake {number}")
            for number, one in sorted(self.there.items())
        )

    def _member(self, number: int) -> FakeMember:
        if number not in self.there:
            raise ConflictError(f"no member {number}", hint="deployer cluster status")
        return self.there[number]

    def exec(self, number: int, words: Sequence[str], *, stdin: bytes = b"") -> ExecResult:
        one = self._member(number)
        match tuple(words):
            case ("member", "status"):
                told = MemberStatus(
                    number=number,
                    role=one.role,
                    uuid=UUID,
                    serial=one.serial,
                    primary_serial=one.serial,
                    primary_answers=True,
                    lag_seconds=0.0,
                    synced=not one.errors,
                    files_in_sync=True,
                    files_missing=0,
                    errors=one.errors,
                    version="1",
                    server_version="6",
                    last_contact_seconds=None,
                )
                return ExecResult(returncode=0, stdout=json.dumps(told.json), stderr="")
            case ("member", "promote", *_):
                self.done.append(f"order {number}")
                if self.refusal:
                    return ExecResult(returncode=5, stdout="", stderr=self.refusal)
                one.ordered = True
                lost = {"commits_lost": self.lost, "uploads_missing": 0}
                return ExecResult(returncode=0, stdout=json.dumps(lost), stderr="")
            case _:
                self.done.append(f"{' '.join(words)} {number}")
                return ExecResult(returncode=0, stdout="{}", stderr="")

    def logs(self, number: int, *, follow: bool = False, since: str = "", tail: int | None = None) -> Iterator[str]:
        self._member(number)
        lines = [f"line {line}" for line in range(3)]
        return iter(lines if tail is None else lines[len(lines) - tail :])

    def restart(self, number: int) -> None:
        self.done.append(f"restart {number}")
        self._member(number).state = State.RUNNING

    def renew(self, number: int) -> None:
        assert self.kept is not None
        if number == self.kept.primary:
            raise Refused(f"member {number} is the primary", hint="promote another one")
        self.done.append(f"renew {number}")
        former = self._member(number)
        self.there[number] = FakeMember(number_of_data=former.number_of_data + 1)

    def stop(self, number: int, *, timeout: timedelta) -> None:
        self.done.append(f"stop {number}")
        self._member(number).state = State.STOPPED

    @contextmanager
    def reach(self) -> Iterator[str]:
        yield "http://127.0.0.1:1"

    def address(self) -> str:
        return ""

    def https(self) -> None:
        return None

    def password(self) -> Secret:
        return Secret("fake-password")

    def down(self, *, purging: bool, on_line: Callable[[str], None]) -> tuple[str, ...]:
        self.there.clear()
        if purging:
            self.volumes.clear()
            self.kept = None
        return tuple(f"volume-{number}" for number in sorted(self.volumes))
