"""When an upstream is asked for a page, and what its answers make of what is known."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("devpi_server")

from deployer.server.devpi.links import place
from deployer.server.mirrors import source as module
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.page import ACCEPT, JSON_TYPE
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.mirrors.source import AGAIN, RETRY, Source
from deployer.server.mirrors.store import UpstreamPages
from deployer.server.upstream.client import NoAnswer
from tests.unit.test_mirror_page import file, page

MIRROR = Mirror(name="root/pypi", url="https://index.example.com/simple/", expiry=1800, credentials=None)
OTHER = replace(MIRROR, url="https://other.example.com/simple/")
OLD, NEW = file(filename="demo-1.0.zip"), file(filename="demo-2.0.zip", hashes={"sha256": "c" * 64})
NOT_FOUND_EXPIRY = 60.0


@dataclass
class Response:
    files: tuple[Any, ...] = ()
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content: bytes | None = None
    url: str = f"{MIRROR.url}demo/"


@dataclass
class Client:
    """An upstream. ``answer``: None when it does not answer."""

    answer: Response | None = field(default_factory=lambda: Response((OLD,)))
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    on_ask: Callable[[], None] = lambda: None

    def page(self, url: str, *, headers: Mapping[str, str]) -> Any:
        self.asked.append((url, headers))
        answer = self.answer
        self.on_ask()
        if answer is None:
            raise NoAnswer("it hangs")
        content = json.dumps(page(*answer.files)).encode() if answer.content is None else answer.content
        headers = {"Content-Type": JSON_TYPE, **answer.headers}
        return SimpleNamespace(status_code=answer.status_code, headers=headers, content=content, url=answer.url)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now - 900_000


class Bench:
    """A source with the mirror ``root/pypi``."""

    def __init__(self, directory: Path, clock: Clock, **rules: Any) -> None:
        self.clock, self.client, self.pages = clock, Client(), UpstreamPages(directory)
        self.is_offline = False
        self.changed: list[tuple[str, str]] = []
        self.mirrors = {MIRROR.name: MIRROR}
        self.refused: list[str] = []
        self.authorizations = ["Basic one", "Basic two"]
        self.indexes: Any = SimpleNamespace(
            mirror=lambda name: self.mirrors.get(name),
            authorization=lambda mirror: self.authorizations[0] if self.authorizations else None,
            try_others=self._try_others,
            at=lambda urls: [one for one in self.mirrors.values() if one.url.rstrip("/") in urls],
        )
        self.source = Source(
            self.pages,
            self.indexes,
            cast(Any, self.client),
            MirrorRules(not_found_expiry=NOT_FOUND_EXPIRY, **rules),
            offline=lambda: self.is_offline,
            changed=lambda mirror, project: self.changed.append((mirror, project)),
        )
        self.configure()

    def _try_others(self, mirror: Mirror, challenge: str) -> bool:
        self.refused.append(challenge)
        del self.authorizations[:1]
        return bool(self.authorizations)

    def configure(self, *mirrors: Mirror) -> None:
        self.mirrors = {one.name: one for one in mirrors or (MIRROR,)}
        self.indexes.on_change(self.mirrors)

    def get(self, project: str = "demo", **more: Any) -> Any:
        self.clock.now += 1 if more else 0
        return self.source.get(self.mirrors[MIRROR.name], project, **more)

    def files(self) -> list[Any] | None:
        found = self.get().read()
        return None if found is None else [{**one} for one in found.files]

    @property
    def count(self) -> int:
        return len(self.client.asked)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


@pytest.fixture
def bench(tmp_path: Path, clock: Clock) -> Bench:
    return Bench(tmp_path, clock)


# Time


def test_a_page_is_asked_for_once_while_it_is_fresh(bench: Bench) -> None:
    answer = bench.get()
    assert (answer.current, answer.until) == (True, bench.clock.now + MIRROR.expiry)
    assert bench.client.asked == [(f"{MIRROR.url}demo/", {"Accept": ACCEPT, "Authorization": "Basic one"})]
    assert bench.changed == [("root/pypi", "demo")]
    bench.clock.now += MIRROR.expiry - 1
    assert bench.source.is_fresh(MIRROR, "demo")
    assert (bench.files(), bench.count, len(bench.changed)) == ([OLD], 1, 1)


def test_an_expired_page_is_asked_for_with_its_validators(bench: Bench) -> None:
    bench.client.answer = Response(
        (OLD,), headers={"ETag": '"1"', "Last-Modified": "yesterday", "X-PyPI-Last-Serial": "7"}
    )
    assert bench.get().kept.head.serial == "7"
    bench.clock.now += MIRROR.expiry
    assert not bench.source.is_fresh(MIRROR, "demo")
    bench.client.answer = Response(status_code=304)
    answer = bench.get()
    assert (answer.current, answer.until, answer.read().files) == (True, bench.clock.now + MIRROR.expiry, [OLD])
    sent = bench.client.asked[-1][1]
    assert (sent["If-None-Match"], sent["If-Modified-Since"]) == ('"1"', "yesterday")
    assert len(bench.changed) == 1
    bench.clock.now += MIRROR.expiry
    bench.client.answer = Response((OLD, NEW))
    assert (bench.files(), len(bench.changed)) == ([OLD, NEW], 2)
    bench.clock.now += MIRROR.expiry
    bench.files()
    sent = bench.client.asked[-1][1]
    assert not {"If-None-Match", "If-Modified-Since"} & sent.keys()  # the last answer had none


@pytest.mark.parametrize("now", [Response((NEW,)), Response((OLD,), content=json.dumps(page(OLD, x=1)).encode())])
def test_a_page_with_another_file_or_field_has_changed(now: Response, bench: Bench) -> None:
    bench.get()
    bench.get(again=True)
    assert len(bench.changed) == 1
    bench.client.answer = now
    bench.get(again=True)
    assert len(bench.changed) == 2


def test_after_a_start_the_disk_knows_how_fresh_a_page_is(bench: Bench, tmp_path: Path) -> None:
    bench.get()
    started = Bench(tmp_path, bench.clock)
    bench.clock.now += MIRROR.expiry - 1
    assert started.files() == [OLD]
    bench.clock.now += 1
    started.client.answer = Response((NEW,))
    assert (started.files(), started.count) == ([NEW], 1)


def test_a_damaged_page_is_asked_for_again(bench: Bench) -> None:
    bench.get()
    path = bench.pages.path("root/pypi", "demo")
    assert path is not None
    path.write_bytes(path.read_bytes()[:-5])
    assert (bench.files(), bench.count) == ([OLD], 2)


# No such project


@pytest.mark.parametrize("status", [404, 410])
def test_that_there_is_no_project_holds_for_a_time_of_its_own(status: int, bench: Bench) -> None:
    bench.client.answer = Response(status_code=status)
    answer = bench.get()
    assert (answer.kept, answer.read(), answer.current) == (None, None, True)
    assert answer.until == bench.clock.now + NOT_FOUND_EXPIRY
    bench.client.answer = Response((OLD,))
    bench.clock.now += NOT_FOUND_EXPIRY - 1
    assert (bench.files(), bench.count) == (None, 1)
    bench.clock.now += 1
    assert (bench.files(), bench.count) == ([OLD], 2)
    assert bench.source.deleted == []


def test_a_deleted_project_is_gone_and_may_come_back(bench: Bench) -> None:
    bench.get()
    bench.clock.now += MIRROR.expiry
    bench.client.answer = Response(status_code=404)
    assert (bench.files(), len(bench.changed), bench.source.deleted) == (None, 2, [("root/pypi", "demo")])
    bench.clock.now += NOT_FOUND_EXPIRY
    assert (bench.files(), len(bench.changed)) == (None, 2)
    bench.clock.now += NOT_FOUND_EXPIRY
    bench.client.answer = Response((OLD,), headers={"ETag": '"1"'})
    assert (bench.files(), len(bench.changed), bench.source.deleted) == ([OLD], 3, [])
    assert "If-None-Match" not in bench.client.asked[-1][1]


def test_a_deleted_project_is_kept_where_the_operator_wants_that(tmp_path: Path, clock: Clock) -> None:
    bench = Bench(tmp_path, clock, keep_deleted=True)
    bench.get()
    bench.clock.now += MIRROR.expiry
    bench.client.answer = Response(status_code=404)
    answer = bench.get()
    assert (answer.read().files, answer.until) == ([OLD], bench.clock.now + NOT_FOUND_EXPIRY)
    assert (len(bench.changed), bench.source.deleted) == (1, [("root/pypi", "demo")])


def test_not_modified_does_not_bring_a_deleted_project_back(bench: Bench) -> None:
    bench.get()
    bench.client.answer = Response(status_code=410)
    bench.get(again=True)
    bench.client.answer = Response(status_code=304)
    answer = bench.get(again=True)
    assert (answer.kept, answer.current) == (None, False)


@pytest.mark.parametrize("project", ["..", "a/b", "a?b", "", "é", "a" * 300])
def test_what_no_project_is_called_is_asked_of_nobody(project: str, bench: Bench) -> None:
    answer = bench.get(project)
    assert (answer.kept, answer.current, bench.count) == (None, True, 0)


# No answer

BAD = [
    None,
    Response(status_code=503),
    Response(status_code=403),
    Response(status_code=301),
    Response(content=b"<html>please log in", headers={"Content-Type": "application/xhtml+xml"}),
    Response(content=b"{"),
    Response(content=b'{"meta": {"api-version": "2.0"}, "files": []}'),
]


@pytest.mark.parametrize("bad", BAD)
def test_without_an_answer_nothing_is_said_of_an_unknown_project(bad: Response | None, bench: Bench) -> None:
    bench.client.answer = bad
    began = bench.clock.monotonic()
    for _ in range(2):
        with pytest.raises(NoAnswer):
            bench.get()
    assert bench.source.failed_since(MIRROR, "demo", began)
    assert not bench.source.is_fresh(MIRROR, "demo")
    assert bench.source.has("root/pypi", "demo") is None
    bench.client.answer = Response((OLD,))
    assert bench.files() == [OLD]


@pytest.mark.parametrize("bad", BAD)
def test_without_an_answer_the_last_page_stays(bad: Response | None, bench: Bench) -> None:
    bench.get()
    bench.clock.now += MIRROR.expiry
    bench.client.answer = bad
    answer = bench.get()
    assert (answer.current, answer.until, answer.read().files) == (False, bench.clock.now + RETRY, [OLD])
    assert bench.source.failed_since(MIRROR, "demo", bench.clock.monotonic())
    assert not bench.source.failed_since(MIRROR, "demo", bench.clock.monotonic() + 1)
    assert len(bench.changed) == 1
    bench.client.answer = Response((NEW,))
    assert bench.files() == [NEW]


def test_without_an_answer_a_deleted_project_stays_gone(bench: Bench) -> None:
    bench.get()
    bench.client.answer = Response(status_code=404)
    bench.get(again=True)
    bench.client.answer = None
    assert bench.get(again=True).kept is None


def test_offline_nobody_is_asked(bench: Bench) -> None:
    bench.get()
    bench.is_offline = True
    bench.clock.now += MIRROR.expiry
    assert (bench.files(), bench.get("other").kept, bench.count) == ([OLD], None, 1)
    assert (bench.source.has("root/pypi", "demo"), bench.source.has("root/pypi", "other")) == (True, False)
    assert bench.source.file(MIRROR, place(NEW)) is None
    assert bench.count == 1


def test_a_full_disk_keeps_no_page_from_a_client(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*of: Any, **more: Any) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(bench.pages, "write", fail)
    assert (bench.files(), bench.files(), bench.count) == ([OLD], [OLD], 2)


# Credentials


def test_other_credentials_are_tried_and_an_end_is_found(bench: Bench) -> None:
    bench.client.answer = Response(status_code=401, headers={"WWW-Authenticate": "Basic realm=x"})
    with pytest.raises(NoAnswer, match="401"):
        bench.get()
    assert [sent.get("Authorization") for _, sent in bench.client.asked] == ["Basic one", "Basic two"]
    assert bench.refused == ["Basic realm=x"] * 2
    bench.authorizations = ["Basic endless"] * 9
    with pytest.raises(NoAnswer):
        bench.get()
    assert bench.count == 2 + 3


def test_with_other_credentials_every_page_is_asked_for_again(bench: Bench, tmp_path: Path) -> None:
    bench.get()
    bench.source.expire(frozenset({OTHER.url.rstrip("/")}))
    assert bench.source.is_fresh(MIRROR, "demo")
    bench.source.expire(frozenset({MIRROR.url.rstrip("/")}))
    assert not bench.source.is_fresh(MIRROR, "demo")
    assert not Bench(tmp_path, bench.clock).source.is_fresh(MIRROR, "demo")


# Another upstream


def test_pages_of_a_former_upstream_are_not_used(bench: Bench) -> None:
    bench.client.answer = Response((OLD,), headers={"ETag": '"1"', "X-PyPI-Last-Serial": "9"})
    bench.get()
    assert bench.source.has_former_links(MIRROR)
    bench.configure(OTHER)
    assert not bench.source.is_fresh(OTHER, "demo")
    assert bench.source.known(OTHER, "demo") is None
    assert not bench.source.has_former_links(OTHER)
    bench.client.answer = Response((NEW,), url=f"{OTHER.url}demo/")
    assert bench.files() == [NEW]
    url, sent = bench.client.asked[-1]
    assert (url, "If-None-Match" in sent) == (f"{OTHER.url}demo/", False)
    bench.configure(MIRROR)
    bench.client.answer = None
    with pytest.raises(NoAnswer):  # not even those of the time before
        bench.get()


def test_another_setting_of_a_mirror_costs_no_page(bench: Bench) -> None:
    bench.get()
    bench.configure(replace(MIRROR, expiry=10_000))
    assert (bench.files(), bench.count) == ([OLD], 1)


def test_a_removed_mirror_leaves_nothing(bench: Bench) -> None:
    removed: list[str] = []
    bench.source.on_removed = removed.append
    bench.get()
    bench.client.answer = Response(status_code=404)
    bench.get(again=True)
    bench.configure(replace(MIRROR, name="root/new"))
    assert (removed, bench.source.names("root/pypi")) == (["root/pypi"], [])
    bench.configure()
    assert bench.source.deleted == []
    assert not bench.source.is_fresh(MIRROR, "demo")


# Many at once


def test_two_threads_ask_once(bench: Bench) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        assert go_on.wait(30)

    bench.client.on_ask = wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(bench.files)
        assert asked.wait(30)
        second = pool.submit(bench.files)
        go_on.set()
        assert (first.result(30), second.result(30)) == ([OLD], [OLD])
    assert bench.count == 1


def test_a_second_thread_that_insists_asks_anew(bench: Bench) -> None:
    """What was asked before it came may be older than what it wants."""
    asked, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        asked.set()
        assert go_on.wait(30)
        bench.clock.now += 1

    bench.client.on_ask = wait
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(bench.files)
        assert asked.wait(30)
        bench.clock.now += 1
        bench.client.answer = Response((NEW,))
        go_on.set()
        first.result(30)
        assert pool.submit(lambda: bench.get(again=True).read().files).result(30) == [NEW]
    assert bench.count == 2


def test_whether_an_answer_is_the_last_one(bench: Bench) -> None:
    """A page that is made of another one must not be stored: the store was told of the new one before."""
    first = bench.get()
    assert bench.source.is_last(MIRROR, "demo", first)
    assert bench.source.is_last(MIRROR, "demo", bench.get())  # the same, from the disk
    last: list[bool] = []
    bench.source._changed = lambda mirror, project: last.append(bench.source.is_last(MIRROR, "demo", first))
    bench.client.answer = Response((NEW,))
    second = bench.get(again=True)
    assert (last, bench.source.is_last(MIRROR, "demo", second)) == ([False], True)
    bench.client.answer = None
    assert bench.source.is_last(MIRROR, "demo", bench.get(again=True))
    bench.client.answer = Response(status_code=404)
    gone = bench.get(again=True)
    assert (bench.source.is_last(MIRROR, "demo", gone), bench.source.is_last(MIRROR, "demo", second)) == (True, False)


def test_projects_do_not_wait_for_one_another(bench: Bench) -> None:
    both = threading.Barrier(2)
    bench.client.on_ask = lambda: bool(both.wait(30)) or None
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(bench.get, name).result for name in ("alpha", "beta")]
        assert all(one(30).kept for one in found)


def test_large_pages_are_read_one_at_a_time(bench: Bench) -> None:
    with bench.source.alone(SimpleNamespace(content=bytes((1 << 20) + 1))):
        assert bench.source._large.locked()
    with bench.source.alone(SimpleNamespace(content=bytes(1 << 20))):
        assert not bench.source._large.locked()


def test_the_memory_of_names_is_bounded_and_forgets_unknown_ones_first(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 20)
    bench.get("demo")
    bench.client.answer = Response(status_code=404)
    for number in range(200):
        bench.clock.now += 1
        assert bench.get(f"unknown-{number}").kept is None
        assert len(bench.source._states) <= 20
    assert ("root/pypi", "demo") in bench.source._states
    assert ("root/pypi", "unknown-199") in bench.source._states


# A client that wants it from no cache


def test_a_page_is_hastened_unless_it_was_just_asked_for(bench: Bench) -> None:
    forgotten: list[str] = []

    def hasten() -> None:
        bench.source.hasten([MIRROR], "demo", "no-cache", forget=forgotten.append)

    hasten()
    assert forgotten == []  # never asked for: it will be
    bench.get()
    bench.clock.now += AGAIN
    hasten()
    assert (bench.files(), bench.count, forgotten) == ([OLD], 1, [])
    bench.clock.now += 1
    hasten()
    assert forgotten == ["demo"]
    bench.client.answer = Response((NEW,))
    assert (bench.files(), bench.count) == ([NEW], 2)


@pytest.mark.parametrize("demanded", ["no-cache", "max-age=0", "No-Cache, max-age=0"])
def test_so_is_that_there_is_no_project(bench: Bench, demanded: str) -> None:
    """pip asks for each page with ``max-age=0``."""
    bench.client.answer = Response(status_code=404)
    bench.get()
    bench.clock.now += AGAIN + 1
    bench.source.hasten([MIRROR], "demo", demanded, forget=lambda project: None)
    bench.client.answer = Response((NEW,))
    assert bench.files() == [NEW]


@pytest.mark.parametrize("demanded", ["max-age=0", "", "max-age=60", "no-transform"])
def test_a_page_that_is_there_holds_for_pip(bench: Bench, demanded: str) -> None:
    bench.get()
    bench.clock.now += AGAIN + 1
    bench.source.hasten([MIRROR], "demo", demanded, forget=lambda project: None)
    bench.client.answer = Response((NEW,))
    assert (bench.files(), bench.count) == ([OLD], 1)


def test_that_there_is_no_project_holds_no_longer_than_a_page(bench: Bench) -> None:
    mirror = replace(MIRROR, expiry=2)
    bench.client.answer = Response(status_code=404)
    bench.source.get(mirror, "demo")
    bench.clock.now += 3
    assert not bench.source.is_fresh(mirror, "demo")


# Files


def test_a_file_is_found_on_the_page_that_is_known(bench: Bench) -> None:
    bench.get()
    found = bench.source.file(MIRROR, place(OLD))
    assert found is not None
    assert (found[0], found[1], bench.count) == ("demo", OLD, 1)
    assert bench.source.file(MIRROR, place(NEW)) is None
    assert bench.count == 1  # the page is fresh


def test_for_a_file_that_is_not_known_the_page_is_asked_for(bench: Bench) -> None:
    found = bench.source.file(MIRROR, place(OLD))
    assert found is not None
    assert (found[1], bench.count) == (OLD, 1)
    bench.clock.now += MIRROR.expiry
    bench.client.answer = Response((NEW,))
    assert bench.source.file(MIRROR, place(OLD)) is not None  # it was known
    found = bench.source.file(MIRROR, place(NEW))
    assert found is not None
    assert (found[1], bench.count) == (NEW, 2)


def test_a_file_of_a_project_whose_name_has_dashes(bench: Bench) -> None:
    one = file(filename="demo-2-extra-1.0.zip")
    bench.client.answer = Response((one,))
    bench.get("demo-2-extra")
    bench.client.answer = Response(status_code=404)
    found = bench.source.file(MIRROR, place(one))
    assert found is not None
    assert (found[0], bench.count) == ("demo-2-extra", 1)


@pytest.mark.parametrize(
    "path", ["+f/abc/def/" + "a-" * 4000 + "1.zip", "+f/abc/def/demo.zip", "+f/abc/def/", "+f/x/y/-1.zip"]
)
def test_an_odd_path_is_looked_up_in_few_places(path: str, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    monkeypatch.setattr(bench.pages, "read", lambda mirror, project, url: read.append(project))
    bench.client.answer = Response(status_code=404)
    assert bench.source.file(MIRROR, path) is None
    assert len(read) <= module.CANDIDATES + 5


def test_a_wheel_without_metadata_is_noted_for_good(bench: Bench, tmp_path: Path) -> None:
    bench.get()
    bench.source.lacks(MIRROR, "demo", place(OLD))
    bench.source.lacks(MIRROR, "demo", place(OLD))
    assert bench.get().kept.head.lacking == [place(OLD)]
    assert len(bench.changed) == 2
    bench.client.answer = Response((OLD, NEW))
    assert bench.get(again=True).kept.head.lacking == [place(OLD)]
    bench.source.lacks(MIRROR, "unknown", place(OLD))  # deleted meanwhile


# For devpi


def test_whether_a_mirror_has_a_project(bench: Bench) -> None:
    assert (bench.source.has("root/dev", "demo"), bench.source.has("root/pypi", "demo"), bench.count) == (None, True, 1)
    bench.client.answer = Response(status_code=404)
    assert bench.source.has("root/pypi", "other") is False
    bench.get(again=True)
    assert bench.source.has("root/pypi", "demo") is True  # once had: nobody else takes over its name


def test_which_upstreams_a_view_may_ask(bench: Bench) -> None:
    bench.get()
    assert not bench.source.may_be_asked(MIRROR, "demo", again=False)
    assert bench.source.may_be_asked(MIRROR, "demo", again=True)
    assert bench.source.may_be_asked(MIRROR, "other", again=False)
    assert bench.source.may_be_asked(MIRROR, None, again=False)
    assert not bench.source.may_be_asked(replace(MIRROR, lists=False), None, again=False)


def test_when_a_page_that_devpi_made_is_due(bench: Bench) -> None:
    now = bench.clock.now
    due = bench.source.due
    assert due([], "demo", began=0) == float("inf")
    assert due([MIRROR], "demo", began=0) == now + MIRROR.expiry
    bench.get()
    bench.clock.now += 100
    assert due([MIRROR], "demo", began=0) == now + MIRROR.expiry
    bench.clock.now += MIRROR.expiry
    bench.client.answer = None
    bench.get()
    assert due([MIRROR], "demo", began=bench.clock.monotonic()) == bench.clock.now + RETRY


def test_the_clock_of_the_tests_is_the_only_one(bench: Bench) -> None:
    assert abs(bench.clock.now - time.time()) > 1_000_000
