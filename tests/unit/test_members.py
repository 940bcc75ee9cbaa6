"""What a primary knows of its replicas, and what the members say to each other."""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from deployer.protocol import ExitCode, MemberStatus, Refusal
from deployer.server.guard.owners import Owners
from deployer.server.members import replicas
from deployer.server.members.following import Following
from deployer.server.members.messages import Report, State, Told
from deployer.server.members.pages import AT_ONCE, Copying, Journal, Written
from deployer.server.members.replicas import LIVE, LONGEST, Replicas
from deployer.server.members.role import PRIMARY, REPLICA, STANDALONE, Role, password_in, take_secret
from deployer.server.secret_files import Private
from deployer.server.upstream.client import NoAnswer

URL = "http://127.0.0.1:3141"


class Clock:
    """Goes on by half a second whenever somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.5
        return self.now


def report(serial: int, *, synced: bool = True, state: str = "") -> Report:
    return Report(serial=serial, state=state, synced=synced)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Replicas:
    monkeypatch.setattr(replicas, "LOOK", 0.0)
    return Replicas(tmp_path / "members.json", write_wait=2.0, clock=clock)


def test_a_write_waits_for_nobody_where_there_is_nobody(known: Replicas, clock: Clock) -> None:
    assert known.wait(7)
    assert clock.now < 2


def test_a_write_waits_until_all_have_it(tmp_path: Path) -> None:
    known = Replicas(tmp_path / "members.json", write_wait=60.0)
    known.note("one", report(7), serial=7)
    known.note("two", report(6), serial=7)
    known.note("new", report(0, synced=False), serial=7)
    later = threading.Timer(0.05, lambda: known.note("two", report(7), serial=7))
    later.start()
    assert known.wait(7)
    later.join()


def test_after_the_wait_one_is_enough_and_none_is_not(known: Replicas, clock: Clock) -> None:
    known.note("one", report(7), serial=7)
    known.note("two", report(6), serial=7)
    assert known.wait(7)
    assert clock.now < LIVE


def test_nobody_waits_for_who_reports_no_more(known: Replicas, clock: Clock) -> None:
    known.note("one", report(6), serial=7)
    assert known.wait(7)
    assert LIVE <= clock.now < LONGEST


def test_nobody_waits_for_who_gets_no_further(known: Replicas, clock: Clock) -> None:
    known.note("one", report(6), serial=7)
    clock.now += LONGEST
    known.note("one", report(6), serial=8)
    began = clock.now
    assert known.wait(8)
    assert clock.now - began < LIVE
    known.note("one", report(7), serial=8)  # it moves: it counts again
    began = clock.now
    assert known.wait(8)
    assert clock.now - began >= LIVE


def test_a_write_ends_where_one_lives_and_never_has_it(
    known: Replicas, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "LIVE", float("inf"))
    known.note("one", report(6), serial=6)
    assert not known.wait(7)
    assert clock.now >= LONGEST


def test_a_primary_that_has_just_started_waits_for_those_that_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicas, "LOOK", 0.0)
    path = tmp_path / "members.json"
    Replicas(path, write_wait=2.0).note("one", report(7), serial=7)
    clock = Clock()
    assert Replicas(path, write_wait=2.0, clock=clock).wait(7)
    assert clock.now >= LIVE
    path.write_text("{")
    assert Replicas(path, write_wait=2.0).wait(7)


def test_a_state_is_waited_for(tmp_path: Path) -> None:
    known = Replicas(tmp_path / "members.json", write_wait=60.0)
    state = State(offline=True, malicious="ab")
    known.note("one", report(7, state=State(offline=False, malicious="ab").name), serial=7)
    later = threading.Timer(0.05, lambda: known.note("one", report(7, state=state.name), serial=7))
    later.start()
    assert known.wait_for_state(state)
    later.join()


def test_what_members_say_survives_the_way() -> None:
    said = report(7, state="online ab")
    assert Report.parse(json.dumps(said.json).encode()) == said
    for releases in (None, "", "{}"):
        told = Told(serial=7, state=State(offline=True, malicious="ab"), releases=releases)
        assert Told.parse(json.dumps(told.json).encode()) == told


def wrong() -> Iterator[bytes]:
    yield from (b"", b"[]", b"null", b"{}", b'{"serial": {}}', b'{"serial": "x"}', b"[" * 100_000)
    yield b'{"serial": 1, "state": 3, "releases": null}'


@pytest.mark.parametrize(("body", "kind"), list(itertools.product(wrong(), (Report, Told))))
def test_nonsense_is_refused(body: bytes, kind: type[Report | Told]) -> None:
    if kind is Report and b'"state": 3' in body:
        return
    with pytest.raises(ValueError, match=r".*"):
        kind.parse(body)


@pytest.mark.parametrize(
    ("kind", "url"), [(REPLICA, ""), (PRIMARY, URL), (STANDALONE, URL), (REPLICA, "127.0.0.1:3141")]
)
def test_roles_that_mean_nothing_are_refused(kind: str, url: str) -> None:
    with pytest.raises(Refusal):
        Role.of(kind, url, write_wait=2.0, upstream=True)


def test_a_directory_keeps_its_role(tmp_path: Path) -> None:
    nodeinfo = tmp_path / ".nodeinfo"
    replica = Role.of(REPLICA, URL, write_wait=2.0, upstream=True)
    assert replica.primary_url == f"{URL}/"
    for role in (replica, Role(PRIMARY), Role()):
        role.check(tmp_path)  # an empty one
    nodeinfo.write_text('{"uuid": "0", "role": "standalone"}')
    Role(PRIMARY).check(tmp_path)
    with pytest.raises(Refusal, match="standalone"):
        replica.check(tmp_path)
    nodeinfo.write_text('{"uuid": "0", "role": "replica"}')
    replica.check(tmp_path)
    for role in (Role(PRIMARY), Role()):
        with pytest.raises(Refusal, match="replica"):
            role.check(tmp_path)


def numbered(number: int, primary: int, uuid: str = "", url: str = URL, on_demand: Sequence[str] = ()) -> Role:
    return Role.chosen(
        argparse.Namespace(
            role="standalone",
            member=number,
            primary=primary,
            primary_url=url,
            cluster_uuid=uuid,
            write_wait=2.0,
            replica_upstream=True,
            files_on_demand=list(on_demand),
        )
    )


def test_a_numbered_member_has_its_role_by_the_numbers() -> None:
    primary, replica = numbered(2, 2), numbered(0, 2)
    assert (primary.kind, primary.primary_url, primary.number) == (PRIMARY, "", 2)
    assert (replica.kind, replica.primary_url, replica.number) == (REPLICA, f"{URL}/", 0)
    with pytest.raises(Refusal, match="needs the address"):
        numbered(0, 2, url="")
    options = argparse.Namespace(role="replica", member=1, primary=1, primary_url=URL)
    with pytest.raises(Refusal, match="--role and --member"):
        Role.chosen(options)
    options.role, options.primary = "standalone", None
    with pytest.raises(Refusal, match="own number and the primary's"):
        Role.chosen(options)


def test_files_of_mirrors_may_come_on_demand() -> None:
    assert numbered(1, 0, on_demand=["root/pypi", "a/b"]).on_demand == ("root/pypi", "a/b")
    for wrong in ("all", "root/pypi,a/b", "mirror"):
        with pytest.raises(Refusal, match="no index"):
            numbered(1, 0, on_demand=[wrong])


PRIMARY_DATA = {"uuid": "a", "role": "primary"}
REPLICA_DATA = {"uuid": "b", "role": "replica", "primary-uuid": "a"}


@pytest.mark.parametrize(
    ("number", "uuid", "found", "why", "cure"),
    [
        (0, "a", {}, "is empty", "mount its volume"),
        (0, "z", PRIMARY_DATA, "holds the data a", "mount its own volume"),
        (1, "a", PRIMARY_DATA, "data of a primary", "deployer cluster renew 1"),
        (0, "a", REPLICA_DATA, "data of a replica", "deployer cluster promote"),
        (1, "z", REPLICA_DATA, "holds the data a", "deployer cluster renew 1"),
        (0, "a", PRIMARY_DATA, "", ""),
        (0, "", PRIMARY_DATA, "", ""),
        (0, "", {}, "", ""),
        (1, "a", REPLICA_DATA, "", ""),
        (1, "a", {"uuid": "b", "role": "replica"}, "", ""),
        (1, "a", {}, "", ""),
    ],
)
def test_a_member_takes_no_other_data(
    tmp_path: Path, number: int, uuid: str, found: dict[str, str], why: str, cure: str
) -> None:
    if found:
        (tmp_path / ".nodeinfo").write_text(json.dumps(found))
    role = numbered(number, 0, uuid)
    if not why:
        role.check(tmp_path)
        return
    with pytest.raises(Refusal, match=why) as caught:
        role.check(tmp_path)
    assert cure in caught.value.hint
    assert (caught.value.code, f"member {number}" in caught.value.message) == (ExitCode.REFUSED, True)


def test_root_s_password_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    for content in (None, b"", b" \n", b"\xff"):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(Refusal, match="root's password"):
            password_in(str(file))
    file.write_text("secret word\n")
    assert password_in(str(file)) == "secret word"


def test_the_secret_of_all_members_is_taken(tmp_path: Path) -> None:
    private = Private.of(tmp_path)
    private.directory.mkdir()
    file = tmp_path / "secret"
    with pytest.raises(Refusal, match="No such file"):
        take_secret(private, str(file))
    for content in (b"", b"short\n", b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(Refusal) as caught:
            take_secret(private, str(file))
        assert "short\n" not in caught.value.text
    file.write_text("s" * 48 + "\n")
    take_secret(private, str(file))
    assert (private.secret.read_text(), private.secret.stat().st_mode & 0o777) == ("s" * 48, 0o600)


class OnePrimary:
    """A primary as its replica asks it."""

    def __init__(self, serial: int) -> None:
        self.serial, self.answers, self.uuid = serial, True, "data"
        self.reports: list[Report] = []

    def report(self, report: Report) -> Told:
        self.reports.append(report)
        if not self.answers:
            raise NoAnswer("connection refused")
        state = State(offline=False, malicious="")
        return Told(serial=self.serial, state=state, owners="root/pypi  root/dev/demo\n", uuid=self.uuid)


def following(tmp_path: Path, primary: OnePrimary, *, seen: int) -> Following:
    """A replica that has all commits up to ``seen``, as after a start."""
    private = Private.of(tmp_path)
    private.directory.mkdir(exist_ok=True)
    private.synced.write_text("data\n")
    queue = SimpleNamespace(unfinished_tasks=0, qsize=lambda: 0)
    shared = SimpleNamespace(
        queue=queue, error_queue=queue, init_queue_finished_at=1.0, errors=SimpleNamespace(errors={})
    )
    config = SimpleNamespace(server_path=tmp_path, get_primary_uuid=lambda: "data")
    thread = SimpleNamespace(shared_data=shared, xom=SimpleNamespace(config=config))
    xom: Any = SimpleNamespace(keyfs=None, replica_thread=thread, config=config)
    store: Any = SimpleNamespace(seen=seen, forget=lambda project: None, forget_all=lambda: None)
    owners, copying = Owners(private.owners), Copying(lambda *_: None)
    asked, files = cast("Any", primary), cast("Any", None)
    made = Following(xom, private, asked, store, files, lambda *_: None, owners, copying)
    made._serial = seen
    return made


def test_a_replica_tells_how_far_behind_it_is(tmp_path: Path) -> None:
    primary, role = OnePrimary(7), numbered(1, 0)
    replica = following(tmp_path, primary, seen=7)
    found = replica.status(role)
    assert (found.lag_seconds, found.last_contact_seconds, found.synced, found.primary_answers) == (
        None,
        None,
        False,
        False,
    )
    replica._report()
    replica.serves = True
    found = replica.status(role)
    assert (found.number, found.role, found.uuid, found.serial, found.primary_serial) == (1, REPLICA, "data", 7, 7)
    assert (found.lag_seconds, found.synced, found.files_in_sync, found.primary_answers) == (0.0, True, True, True)
    primary.serial = 8
    replica._report()
    assert replica.status(role).lag_seconds is not None
    primary.answers = False
    replica._report()
    found = replica.status(role)
    assert (found.serial, found.primary_serial, found.primary_answers, found.errors) == (7, 8, False, ())
    assert MemberStatus.parse(found.json) == found


def test_a_replica_takes_who_served_projects_first(tmp_path: Path) -> None:
    primary = OnePrimary(7)
    replica = following(tmp_path, primary, seen=7)
    owners = Owners(Private.of(tmp_path).owners)
    replica._owners.note("root/dev", "own", "root/pypi")
    primary.answers = False
    replica._report()
    assert primary.reports[-1].noted == (("root/dev", "own", "root/pypi"),)
    primary.answers = True
    replica._report()
    assert primary.reports[-1].noted == (("root/dev", "own", "root/pypi"),)
    replica._report()
    assert (primary.reports[-1].noted, len(primary.reports[-1].owners)) == ((), 32)
    assert owners.projects("root/dev") == ["demo"]


def test_a_replica_that_is_ahead_of_its_primary_serves_nothing(tmp_path: Path) -> None:
    """Another member was promoted, or the primary was restored from a backup."""
    primary = OnePrimary(6)
    replica = following(tmp_path, primary, seen=7)
    replica.serves = True
    primary.uuid = "another one's"  # at the wrong address
    replica._report()
    assert (replica.serves, replica.answers, replica.diverged) == (True, False, "")
    primary.uuid = "data"
    replica._report()
    found = replica.status(numbered(1, 0))
    assert (replica.serves, found.synced) == (False, False)
    assert found.errors == ("it has commits up to 7, and its primary only up to 6: renew this member",)
    again = following(tmp_path, OnePrimary(9), seen=9)  # its next commits have the same serials
    again._report()
    assert (again.serves, again.status(numbered(1, 0)).errors) == (False, found.errors)


def test_the_journal_names_each_page_once_in_the_order_of_writing() -> None:
    kept = [("root/pypi", f"p{number}") for number in range(AT_ONCE + 1)]
    journal = Journal(lambda: kept)
    journal.note("root/pypi", "early")  # it is among those that are kept when somebody asks
    first = journal.since("")
    assert first.names == tuple(kept[:-1])
    journal.note(*kept[0])
    second = journal.since(first.mark)
    assert second.names == (kept[-1], kept[0])
    assert journal.since(second.mark) == Written(second.mark, ())
    journal.note("a/b", "new")
    assert journal.since(second.mark).names == (("a/b", "new"),)
    other = Journal(lambda: kept[:2])
    for mark in (second.mark, "", "nonsense", f"{second.mark.partition(':')[0]}:x"):
        assert other.since(mark).names == tuple(kept[:2])


def test_pages_are_copied_until_the_primary_is_silent() -> None:
    silent, copied, asked = threading.Event(), list[str](), threading.Semaphore(0)

    def copy(mirror: str, project: str) -> None:
        asked.release()
        if silent.is_set():
            raise NoAnswer("connection refused")
        copied.append(project)
        if project == "damaged":
            raise ValueError(project)

    def until(mark: str) -> None:
        deadline = time.monotonic() + 60
        while copying.mark != mark:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    copying = Copying(copy)
    copying.start()
    assert copying.mark == ""
    copying.take(Written("x:2", (("a/b", "damaged"), ("a/b", "whole"))))
    until("x:2")
    assert copied == ["damaged", "whole"]
    silent.set()
    copying.take(Written("x:3", (("a/b", "later"),)))
    assert all(asked.acquire(timeout=60) for _ in range(3))
    until("x:2")
    silent.clear()
    copying.take(Written("x:3", (("a/b", "later"),)))
    until("x:3")
    assert copied == ["damaged", "whole", "later"]


@pytest.mark.parametrize("pages", [None, Written("x:1", (("a/b", "demo"),))])
def test_reports_and_answers_of_other_versions_are_read(pages: Written | None) -> None:
    told = Told(serial=7, state=State(offline=False, malicious=""), pages=pages, uuid="u")
    assert Told.parse(json.dumps(told.json).encode()) == told
    whole = Report(serial=7, state="s", synced=True, owners="o", noted=(("a/b", "demo", "c/d"),), pages="x:1")
    assert Report.parse(json.dumps(whole.json).encode()) == whole
    for later in ("owners", "noted", "pages", "uuid"):
        old = {key: value for key, value in whole.json.items() if key != later}
        assert Report.parse(json.dumps(old).encode()).serial == 7
        old = {key: value for key, value in told.json.items() if key != later}
        assert Told.parse(json.dumps(old).encode()).serial == 7


def test_a_primary_that_answers_again_makes_an_order_void(tmp_path: Path) -> None:
    primary = OnePrimary(7)
    replica, promote = following(tmp_path, primary, seen=7), Private.of(tmp_path).promote
    promote.write_text('{"uuid": "data", "serial": 7}')
    primary.answers = False
    replica._report()
    assert promote.exists()
    primary.answers = True
    replica._report()
    assert not promote.exists()
