"""The history: an hour for each hour with requests, ninety days of them, and what upstreams did."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.operations.history import read, summed
from deployer.server.nginx.history import HOURS, MOST_UPSTREAMS, History
from deployer.server.upstream.health import Upstream

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def line(at: datetime = START, **other: object) -> dict[str, Any]:
    told: dict[str, Any] = {
        "time": at.isoformat(),
        "method": "GET",
        "status": 200,
        "path": "/root/dev/+simple/demo/",
        "bytes": 100,
        "from": "page",
        "fetched": "",
        "kept": "",
    }
    return told | other


def test_requests_are_counted_by_the_hour(tmp_path: Path) -> None:
    history = History(tmp_path / "history.json")
    history.line(line())
    history.line(line(status=502, **{"from": "devpi"}))
    history.line(line(path="/root/pypi/+f/abc/0123456789012/demo-1.0.tar.gz", fetched="no", **{"from": "devpi"}))
    history.line(line(START + timedelta(hours=1)))
    first, second = history.since()
    assert first == {
        "hour": "2026-01-02T03:00+00:00",
        "requests": 3,
        "hits": 1,
        "misses": 1,
        "errors": 1,
        "bytes_served": 300,
        "bytes_saved": 100,
        "upstreams": {},
    }
    assert (second["hour"], second["requests"]) == ("2026-01-02T04:00+00:00", 1)
    assert history.since((START + timedelta(hours=1)).timestamp()) == [second]


def test_what_upstreams_did_is_counted_once(tmp_path: Path) -> None:
    now = [0.0]
    upstream = Upstream("https://files.example.com", lambda: now[0])
    history = History(tmp_path / "history.json", upstreams=lambda: [upstream], clock=START.timestamp)
    assert upstream.begin(1)
    now[0] = 0.5
    upstream.answered(1)
    upstream.received(1000)
    history.tick()
    history.tick()
    upstream.begin(2)
    upstream.failed(2)
    history.tick()
    (hour,) = history.since()
    assert hour["upstreams"] == {
        upstream.origin: {
            "requests": 2,
            "failures": 1,
            "bytes": 1000,
            "answered": 1,
            "waited": 0.5,
            "slowest": 0.5,
        }
    }


def test_it_is_known_after_a_restart_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "history.json"
    first = History(path)
    first.line(line())
    first.write()
    second = History(path)
    second.line(line())
    assert [hour["requests"] for hour in second.since()] == [2]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"hours": 5}', b'{"hours": [{"hour": "x"}]}'])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "history.json"
    path.write_bytes(content)
    history = History(path)
    history.line(line())
    history.write()
    assert len(json.loads(path.read_bytes())["hours"]) == 1


def test_it_is_bounded(tmp_path: Path) -> None:
    many = [Upstream(f"https://u{number}.example.com") for number in range(MOST_UPSTREAMS + 5)]
    history = History(tmp_path / "history.json", upstreams=lambda: many, clock=START.timestamp)
    for upstream in many:
        upstream.begin(1)
    history.tick()
    assert len(history.since()[0]["upstreams"]) == MOST_UPSTREAMS
    for number in range(HOURS + 10):
        history.line(line(START + timedelta(hours=number)))
    found = history.since()
    assert len(found) == HOURS
    assert found[-1]["hour"] == (START + timedelta(hours=HOURS + 9)).isoformat(timespec="minutes").replace(":04", ":00")


def test_hours_are_read_and_summed_up(tmp_path: Path) -> None:
    now = [0.0]
    upstream = Upstream("https://files.example.com", lambda: now[0])
    history = History(tmp_path / "history.json", upstreams=lambda: [upstream], clock=START.timestamp)
    for number in range(3):
        history.line(line(START + timedelta(hours=number)))
    upstream.begin(1)
    now[0] = 0.25
    upstream.answered(1)
    history.tick()
    history.write()
    text = (tmp_path / "history.json").read_text()
    place: Any = SimpleNamespace(history=lambda: text)
    deployment: Any = SimpleNamespace(server_dir=place, name="devpi")
    found = read(deployment, START + timedelta(hours=1))
    assert [hour["hour"] for hour in found] == ["2026-01-02T04:00+00:00", "2026-01-02T05:00+00:00"]
    total, upstreams = summed(read(deployment, START))
    assert (total["requests"], total["bytes_saved"]) == (3, 300)
    assert upstreams[upstream.origin] == {
        "requests": 1,
        "failures": 0,
        "bytes": 0,
        "answered": 1,
        "waited": 0.25,
        "slowest": 0.25,
    }
