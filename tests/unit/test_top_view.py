"""The screen of `deployer top`: all of it in 80 columns and 24 lines, with rates from the second one on."""

from __future__ import annotations

from copy import deepcopy

import pytest

from deployer.operations.top import frame
from deployer.protocol import Activity, RecentRequest

REQUEST = RecentRequest(
    time="2026-01-02T03:04:05+00:00",
    client="127.0.0.1",
    method="GET",
    path="/root/dev/+simple/" + "long-" * 40 + "name/",
    status=200,
    bytes=1234,
    seconds=0.5,
    sent_by="page",
    hit=True,
)


def now(recent: int = 50) -> Activity:
    counts = {"requests": 10, "hits": 6, "misses": 2, "bytes_served": 10_000, "bytes_saved": 5_000}
    upstream = {"requests": 3.0, "failures": 1.0, "bytes": 1000.0, "slowest": 0.25}
    return {
        "at": "2026-01-02T03:04:06+00:00",
        "counted": {
            "since": "2026-01-01T00:00:00+00:00",
            "indexes": {f"root/{'long' * 20}{number}": dict(counts) for number in range(10)},  # type: ignore[typeddict-item]
            "upstreams": {"https://files.example.com": upstream},  # type: ignore[typeddict-item]
        },
        "upstreams": {f"https://files{number or ''}.example.com": {"state": "up", "asking": 0} for number in range(9)},
        "threads": {"total": 50, "busy": 3, "queued": 1},
        "recent": [REQUEST] * recent,
    }


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60)])
def test_a_screen_fits_its_terminal(width: int, height: int) -> None:
    text = frame(now(), None, seconds=0, title="deployer top  devpi", width=width, height=height)
    lines = text.splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width


def test_it_says_what_happens() -> None:
    text = frame(now(), None, seconds=0, title="deployer top  devpi", width=80, height=24)
    for told in ("03:04:06", "requests 100", "75 % hits", "3 of 50 busy, 1 requests wait", "up", "0.25 s", "hit"):
        assert told in text
    assert "/s)" not in text


def test_rates_are_those_since_the_screen_before() -> None:
    before, after = now(), deepcopy(now())
    for counts in after["counted"]["indexes"].values():
        counts["requests"] += 2
        counts["bytes_served"] += 1000
    text = frame(after, before, seconds=2, title="", width=80, height=24)
    assert "requests 120 (10.0/s)" in text
    assert "(5 kB/s)" in text


def test_a_server_without_a_request_has_a_screen() -> None:
    empty = now(0)
    empty["counted"]["indexes"], empty["upstreams"] = {}, {}
    text = frame(empty, None, seconds=0, title="deployer top", width=80, height=24)
    assert "no requests yet" in text
