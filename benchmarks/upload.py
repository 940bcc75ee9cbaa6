"""Whether what was uploaded is there for the very next request, on a page that was just asked for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial

import httpx

from benchmarks.bench import Bench
from benchmarks.load import JSON
from benchmarks.measure import Goal, Grid, in_turns, timed
from benchmarks.peers.base import LOCAL, PRIVATE, TakesUploads
from benchmarks.peers.ours import Ours
from tests.upstream import make_wheel

FORMS = ({"Accept": "text/html"}, JSON)


def uploads(bench: Bench) -> list[Grid]:
    """Upload version after version; after each, the page in both forms must have it."""
    columns = ("upload, ms", "page after it, ms", "uploads", "next page without it")
    grid = Grid(title="A private upload", columns=columns)

    def to(kind: type[TakesUploads]) -> Mapping[str, float]:
        with bench.up(kind) as peer:
            return _round(peer, bench.scale.uploads)

    kinds = [kind for kind in bench.peers if issubclass(kind, TakesUploads)]
    in_turns(grid, {kind.name: partial(to, kind) for kind in kinds}, rounds=bench.scale.few)
    stale = grid.of(Ours.name, "next page without it")
    what = "next pages that lack what was just uploaded"
    grid.goals = [Goal(number=2, what=what, values=stale, limit=0, worst=True)]
    return [grid]


def _round(peer: TakesUploads, count: int) -> Mapping[str, float]:
    url = f"{peer.simple_url}{PRIVATE}/"
    stale, upload, after = 0, 0.0, 0.0
    first = make_wheel(PRIVATE, "1.0")
    peer.upload(first.filename, first.content)
    with httpx.Client(timeout=60, **LOCAL) as client:
        for number in range(count):
            for form in FORMS * 2:
                client.get(url, headers=form)  # whoever keeps pages has this one now
            wheel = make_wheel(PRIVATE, f"1.1.{number}")
            upload += timed(partial(peer.upload, wheel.filename, wheel.content))
            for form in FORMS:
                started = time.perf_counter()
                page = client.get(url, headers=form)
                after += time.perf_counter() - started
                stale += wheel.filename not in page.text
    mean = {"upload, ms": 1000 * upload / count, "page after it, ms": 1000 * after / count / len(FORMS)}
    return {**mean, "uploads": count, "next page without it": stale}
