"""Who may ask an upstream and who may wait for it, with a clock of our own."""

from __future__ import annotations

import pytest

from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.single_flight import SingleFlight
from deployer.server.upstream.health import HOLD, LONGEST_HOLD, QUIET, Upstream, origin_of


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def upstream(clock: Clock) -> Upstream:
    return Upstream("https://packages.example.com", clock)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://user:secret@packages.example.com/simple/", "https://packages.example.com"),
        ("http://127.0.0.1:3141/root/pypi", "http://127.0.0.1:3141"),
    ],
)
def test_an_origin_has_no_credentials_and_no_path(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_one_tries_whether_it_is_back(upstream: Upstream, clock: Clock) -> None:
    assert upstream.begin(1)
    upstream.failed(1)
    assert upstream.down
    assert not upstream.begin(2)
    clock.now += HOLD
    assert upstream.begin(3)
    assert not upstream.begin(4)  # one tries, the others are refused
    upstream.failed(3)
    assert not upstream.begin(5)
    clock.now += HOLD
    assert upstream.begin(6)
    upstream.answered(6)
    assert upstream.begin(7)
    assert not upstream.down


def test_a_try_that_nobody_waits_for_any_more_leaves_room_for_another(upstream: Upstream, clock: Clock) -> None:
    upstream.begin(1)
    upstream.failed(1)
    clock.now += HOLD
    assert upstream.begin(2)
    upstream.ended(2)
    assert upstream.begin(3)


def test_it_may_ask_us_to_stay_away_but_not_for_long(upstream: Upstream, clock: Clock) -> None:
    upstream.begin(1)
    upstream.answered(1, retry_after=10_000)
    assert upstream.down
    clock.now += LONGEST_HOLD
    assert not upstream.down


def test_it_is_quiet_when_somebody_waits_and_nothing_comes(upstream: Upstream, clock: Clock) -> None:
    clock.now += 100
    assert not upstream.quiet  # nobody asked
    upstream.begin(1)
    assert not upstream.quiet
    clock.now += QUIET + 0.1
    assert upstream.quiet
    upstream.received(10)
    assert not upstream.quiet
    clock.now += QUIET + 0.1
    assert upstream.quiet  # a body that stopped coming
    upstream.ended(1)
    assert not upstream.quiet


def test_only_a_share_may_wait_for_a_quiet_upstream(upstream: Upstream, clock: Clock) -> None:
    bulkhead = Bulkhead(10)
    upstream.begin(1)
    upstream.answered(1)
    waiting = [bulkhead.waiting([upstream]) for _ in range(8)]
    permits = [permit.__enter__() for permit in waiting]
    assert all(permit.valid for permit in permits)
    clock.now += QUIET + 0.1
    assert [permit.valid for permit in permits].count(True) == 5
    assert sum(permit.held for permit in permits) == 5
    with bulkhead.waiting([Upstream("http://other", clock)]) as other:
        assert other.valid
    for context in waiting:
        context.__exit__(None, None, None)
    with bulkhead.waiting([upstream]) as permit:
        assert permit.valid


def test_most_threads_at_once_need_an_upstream_that_is_known_to_answer(upstream: Upstream) -> None:
    bulkhead = Bulkhead(10)
    waiting = [bulkhead.waiting([upstream]) for _ in range(9)]
    permits = [permit.__enter__() for permit in waiting]
    assert [permit.valid for permit in permits].count(False) == 1
    upstream.begin(1)
    upstream.answered(1)
    with bulkhead.waiting([upstream]) as more:
        assert more.valid
    for context in waiting:
        context.__exit__(None, None, None)


def test_who_comes_while_a_job_is_under_way_joins_it() -> None:
    import threading

    go = threading.Event()
    flights: SingleFlight[str] = SingleFlight("test")

    def job() -> str:
        assert go.wait(30)
        return "done"

    first, mine = flights.join(["key", "same"], job)
    second, theirs = flights.join(["more", "same"], job)  # one key in common is enough
    other, separate = flights.join(["more"], lambda: "at once")
    assert (mine, theirs, second, separate) == (True, False, first, True)
    assert other.wait(30)
    assert not first.wait(0)
    go.set()
    assert first.wait(30)
    assert first.result == "done"
    third, again = flights.join(["key"], lambda: "anew")
    assert again
    assert third.wait(30)
    assert third.result == "anew"


def test_what_a_job_raises_is_raised_for_all_who_waited() -> None:
    def job() -> str:
        raise LookupError("no")

    flights: SingleFlight[str] = SingleFlight("test")
    flight, _ = flights.join(["key"], job)
    assert flight.wait(30)
    with pytest.raises(LookupError):
        _ = flight.result


def test_a_key_that_is_named_twice_is_flown_for_once() -> None:
    flights: SingleFlight[str] = SingleFlight("test")
    flight, mine = flights.join(["a", "a"], lambda: "done")
    assert mine and flight.wait(60)
    assert flight.result == "done"
