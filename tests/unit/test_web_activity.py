"""Plots and the last requests, as data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.server.web import plot, recent, words
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
    assert len(points) == sum(value is not None for value in values)
    assert all(plot.LEFT <= float(x) <= found.width and 0 <= float(y) <= found.bottom for x, y in points)
    assert len(found.table) == len(values)


def test_a_gap_breaks_the_line_and_one_moment_is_no_plot() -> None:
    found = plot.over_time("k", "T", [0, 60, 120, 180], [Series("a", [1, None, 2, 3])], words.number)
    assert found is not None and [len(part.split()) for part in found.lines[0].parts] == [1, 2]
    assert found.lines[0].last == "3"
    assert plot.over_time("k", "T", [0], [Series("a", [1])], words.number) is None


def test_bars_are_shares_of_the_longest() -> None:
    assert [bar.percent for bar in plot.bars([("a", "/a", 200), ("b", "/b", 50)], words.size)] == [100, 25]
    assert plot.bars([("a", "/a", 0)], words.size)[0].percent == 0


def line(**more: object) -> bytes:
    told = {
        "time": "2026-01-02T03:04:05+00:00",
        "client": "192.0.2.1",
        "method": "GET",
        "path": "/root/pypi/+simple/demo/",
    }
    told |= {"status": 200, "bytes": 1234, "seconds": 0.002, "from": "page", "fetched": "", "kept": "", "held": ""}
    return json.dumps(told | more).encode() + b"\n"


def test_the_last_requests_are_shown_without_who_sent_them(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    assert recent.requests(log) is None
    cut = line(path="/cut")[20:]
    ours = line(path="/+web/search")
    lines = [
        cut,
        line(),
        ours,
        b"nonsense\n",
        b"[1]\n",
        line(path="/x", status=404, **{"from": "devpi"}),
        line(held="deny"),
    ]
    log.write_bytes(b"".join(lines))
    found = recent.requests(log)
    assert found is not None and [one.answer for one in found] == ["held back", "", "from here"]
    assert (found[2].time, found[2].size, found[2].seconds) == ("03:04:05", "1.2 kB", "0.002 s")
    assert not any("192.0.2.1" in str(one) for one in found)
    log.write_bytes(line() * 2000)
    many = recent.requests(log)
    assert many is not None and len(many) == recent.SHOWN
