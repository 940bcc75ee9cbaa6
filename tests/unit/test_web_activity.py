"""Plots and the last requests, as data."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.protocol import HistoryHour, HistoryUpstream, RecentRequest
from deployer.server.web import activity, plot, timeline, words
from deployer.server.web.plot import Series


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (0.3, 0.5), (1, 1), (1.2, 2), (7, 10), (99, 100), (101, 200), (2400, 2500), (float("inf"), 1)],
)
def test_an_axis_ends_at_a_round_number(value: float, top: float) -> None:
    assert plot.ceiling(value) == pytest.approx(top)


@given(
    values=st.lists(st.none() | st.floats(min_value=0, max_value=1e15), min_size=2, max_size=50),
    start=st.integers(min_value=0, max_value=2 * 10**9),
)
def test_every_point_is_within_the_picture(values: list[float | None], start: int) -> None:
    found = plot.over_time(
        "k", "Title", [start + 60 * n for n in range(len(values))], [Series("a", values)], words.size
    )
    if found is None:
        assert all(value is None for value in values)
        return
    points = [point.split(",") for part in found.lines[0].parts for point in part.split()]
    alone = sum(len(part.split()) == 2 and len({*part.split()}) == 1 for part in found.lines[0].parts)
    assert sum(value is not None for value in values) <= len(points) <= sum(v is not None for v in values) + alone
    assert all(plot.LEFT <= float(x) <= found.width and 0 <= float(y) <= found.bottom for x, y in points)
    assert len(found.table) == len(values)


def test_a_gap_breaks_the_line_and_one_moment_is_no_plot() -> None:
    found = plot.over_time("k", "T", [0, 60, 120, 180], [Series("a", [1, None, 2, 3])], words.number)
    assert found is not None and [len({*part.split()}) for part in found.lines[0].parts] == [1, 2]
    assert found.lines[0].last == "3"
    assert plot.over_time("k", "T", [0], [Series("a", [1])], words.number) is None


def test_bars_are_shares_of_the_longest() -> None:
    assert [bar.percent for bar in plot.bars([("a", "/a", 200), ("b", "/b", 50)], words.size)] == [100, 25]
    assert plot.bars([("a", "/a", 0)], words.size)[0].percent == 0


def test_the_last_requests_are_shown_without_who_sent_them() -> None:
    given = RecentRequest(
        time="2026-01-02T03:04:05+00:00",
        client="192.0.2.1",
        method="GET",
        path="/root/pypi/+simple/demo/",
        status=200,
        bytes=1234,
        seconds=0.002,
        sent_by="page",
        hit=True,
    )
    ours = RecentRequest(**{**given, "path": "/+web/search"})
    found = activity.recent([given, ours, RecentRequest(**{**given, "hit": None, "status": 404})])
    assert [one.answer for one in found] == ["from here", ""]
    assert (found[0].time, found[0].size, found[0].seconds) == ("03:04:05", "1.2 kB", "2 ms")
    assert not any("192.0.2.1" in str(one) for one in found)
    assert len(activity.recent([given] * 500)) == activity.REQUESTS


UPSTREAM = "https://up.example.com"


def hour(at: float, **counts: int) -> HistoryHour:
    upstream = HistoryUpstream(requests=4, failures=1, bytes=100, answered=2, waited=0.5, slowest=0.4)
    told = {"requests": 10, "hits": 7, "misses": 2, "errors": 1, "bytes_served": 900, "bytes_saved": 700, **counts}
    moment = datetime.fromtimestamp(at // 3600 * 3600, UTC).isoformat(timespec="minutes")
    return HistoryHour(hour=moment, upstreams={UPSTREAM: upstream}, **told)  # type: ignore[typeddict-item]


@pytest.mark.parametrize(("days", "points"), [(1, 25), (7, 29), (90, 91)])
def test_plots_are_of_the_asked_span(days: int, points: int) -> None:
    now = 1_800_000_000.0
    found = timeline.plots([hour(now), hour(now - 3600), hour(now - 100 * 86400)], now=now, days=days)
    assert [one.key for one in found] == ["requests", "bytes", "latency", "failures"]
    assert all(len(one.table) == points for one in found)
    _, buckets = timeline.sorted_in([hour(now), hour(now - 3600)], now=now, days=days)
    assert sum(one.hits for one in buckets) == 14
    assert buckets[-1].latency(UPSTREAM) == 0.25 and buckets[0].latency(UPSTREAM) is None
    assert found[2].lines[0].label == "up.example.com" and found[2].lines[0].last == "250 ms"


def test_nothing_that_happened_is_a_plot_of_nothing() -> None:
    found = timeline.plots([], now=1_800_000_000.0, days=7)
    assert [one.key for one in found] == ["requests", "bytes"]
