"""What a refresh of a mirror's pages finds, and which deletions are remembered over a start."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

pytest.importorskip("devpi_server")

from deployer.protocol import Outcome
from deployer.server.mirrors import source as module
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.mirrors.source import Source
from deployer.server.mirrors.store import UpstreamPages
from deployer.server.upstream.client import NoAnswer

MIRROR = Mirror(name="root/pypi", url="https://packages.example.com/simple/", expiry=1800, credentials=None)


class Upstream:
    """Pages by project: their files and status, None for no answer; an ETag is their content."""

    def __init__(self) -> None:
        self.pages: dict[str, dict[str, Any] | None] = {}
        self.on_ask: Callable[[], None] = lambda: None

    def page(self, url: str, *, headers: Mapping[str, str]) -> Any:
        self.on_ask()
        project = url.removeprefix(MIRROR.url).rstrip("/")
        fields = self.pages.get(project, {"status": 404})
        if fields is None:
            raise NoAnswer("it hangs")
        content = json.dumps({"meta": {"api-version": "1.1"}, "name": project, "files": [], **fields}).encode()
        status = fields.get("status", 200)
        etag = f'"{hash(content)}"'
        if headers.get("If-None-Match") == etag:
            status = 304
        kind = "application/vnd.pypi.simple.v1+json"
        return SimpleNamespace(
            status_code=status, content=content, url=url, headers={"Content-Type": kind, "ETag": etag}
        )


class Bench:
    def __init__(self, directory: Path, *, keep_deleted: bool = False) -> None:
        self.upstream = Upstream()
        self.mirrors = {MIRROR.name: MIRROR}
        indexes = SimpleNamespace(mirror=self.mirrors.get, authorization=lambda mirror: None)
        self.source = Source(
            UpstreamPages(directory),
            cast(Any, indexes),
            cast(Any, self.upstream),
            MirrorRules(keep_deleted=keep_deleted),
            offline=lambda: False,
            changed=lambda mirror, project: None,
        )

    def refresh(self, *projects: str) -> dict[str, str]:
        return dict(self.source.refresh(MIRROR.name, projects or None))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def file(version: str) -> dict[str, Any]:
    name = f"alpha-{version}.tar.gz"
    return {"filename": name, "url": f"https://files.example.com/{name}", "hashes": {}}


@pytest.mark.parametrize(
    ("now", "outcome"),
    [
        ({"files": [file("1.0")]}, Outcome.UNCHANGED),
        ({"files": [file("1.0"), file("2.0")]}, Outcome.CHANGED),
        ({"files": [{**file("1.0"), "yanked": "broken"}]}, Outcome.CHANGED),
        ({"files": [file("1.0")], "project-status": {"status": "quarantined"}}, Outcome.CHANGED),
        ({"status": 404}, Outcome.GONE),
        ({"status": 410}, Outcome.GONE),
        ({"status": 503}, Outcome.NO_ANSWER),
        (None, Outcome.NO_ANSWER),
    ],
)
@pytest.mark.parametrize("keep_deleted", [False, True])
def test_what_a_page_is_now(now: dict[str, Any] | None, outcome: Outcome, keep_deleted: bool, tmp_path: Path) -> None:
    bench = Bench(tmp_path, keep_deleted=keep_deleted)
    bench.upstream.pages = {"alpha": {"files": [file("1.0")]}}
    assert bench.refresh("alpha") == {"alpha": Outcome.CHANGED}
    bench.upstream.pages = {"alpha": now}
    assert bench.refresh("alpha") == {"alpha": outcome}
    assert bench.source.deleted == ([("root/pypi", "alpha")] if outcome is Outcome.GONE else [])
    bench.upstream.pages = {"alpha": {"files": [file("3.0")]}}
    assert bench.refresh() == {"alpha": Outcome.CHANGED}
    assert bench.source.deleted == []


def test_an_unknown_project_and_an_index_that_is_no_mirror(bench: Bench) -> None:
    assert bench.refresh("unknown") == {"unknown": Outcome.GONE}
    assert bench.source.deleted == []  # nobody had it
    assert bench.refresh() == {}
    with pytest.raises(LookupError):
        bench.source.refresh("root/dev", None)


def test_what_takes_too_long_is_left_and_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"p{number}" for number in range(5))
    bench.upstream.pages = {name: {} for name in names}
    clock = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(time=time.time, monotonic=lambda: clock[0]))
    monkeypatch.setattr(module, "REFRESH_THREADS", 1)

    def pass_time() -> None:
        clock[0] += module.REFRESH_SECONDS * 0.6

    bench.upstream.on_ask = pass_time
    found = bench.refresh(*names)
    assert list(found.values()) == [Outcome.CHANGED] * 2 + [Outcome.LEFT] * 3


def test_what_was_deleted_before_a_start_is_found_again(bench: Bench, tmp_path: Path) -> None:
    bench.upstream.pages = {"alpha": {}, "beta": {}}
    bench.refresh("alpha", "beta")
    bench.upstream.pages = {"beta": {}}
    bench.refresh()
    started = Bench(tmp_path)
    assert started.source.deleted == []
    started.source.find_deleted([MIRROR.name, "root/none"])
    assert started.source.deleted == [("root/pypi", "alpha")]
    del started.mirrors[MIRROR.name]
    assert started.source.deleted == []  # of an index that is no more, nothing is told
