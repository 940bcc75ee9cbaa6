"""A table of the pages for browsers: what they cost at the start and in memory, and how long one takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import httpx

from benchmarks.bench import Bench
from benchmarks.index import add_all
from benchmarks.load import JSON
from benchmarks.measure import Goal, Grid, in_turns, timed
from benchmarks.peers.base import LOCAL
from benchmarks.peers.ours import Ours

NUMBER = 19
PROJECTS = 2000
ASKED = 10
"""How often each page is asked for."""
READY, MEMORY, LARGEST = "start, s", "peak, MiB", "largest page, kB"
PAGES = {
    "`/`, ms": "/",
    "project, ms": "/root/dev/bench-shown-7",
    "search, ms": "/+web/search?q=shown-1",
    "90 days, ms": "/+web/activity?days=90",
}
BROWSER = {"Accept": "text/html,application/xhtml+xml", "Accept-Encoding": "gzip"}


@dataclass(kw_only=True)
class OursWithoutPages(Ours):
    """Ours with no pages for browsers."""

    name = "deployer without pages"
    more: tuple[str, ...] = ("--set", "server.web=off")


def web(bench: Bench) -> list[Grid]:
    """Both after each other, with the same projects."""
    names = [f"bench-shown-{number}" for number in range(PROJECTS)]
    add_all(bench.promising.index, names, size=2000, links=20)
    grid = Grid(
        title=f"Pages for browsers, {PROJECTS} projects",
        columns=(READY, MEMORY, *PAGES, LARGEST),
        base=OursWithoutPages.name,
    )
    grid.ratios = (READY,)

    def through(kind: type[Ours]) -> Mapping[str, float]:
        with bench.up(kind, upstream=bench.promising) as peer, httpx.Client(timeout=120, **LOCAL) as client:
            for name in names:
                client.get(f"{peer.simple_url}{name}/", headers=JSON).raise_for_status()
            row = dict(_pages(client, peer.url)) if kind is Ours else {}
            row[MEMORY] = peer.peak()
            peer.stop()
            row[READY] = timed(peer.start)
        return row

    in_turns(grid, {kind.name: partial(through, kind) for kind in (OursWithoutPages, Ours)}, rounds=bench.scale.few)
    grid.notes.append(
        f"A page: the median of {ASKED}, as a browser gets it, after the first one; 100 kB are its limit."
    )
    for column in PAGES:
        limit = 50 if column.startswith("90") else 100
        grid.goals.append(Goal(number=NUMBER, what=column, values=grid.of(Ours.name, column), limit=limit, unit=" ms"))
    memory = grid.of(Ours.name, MEMORY)
    grid.goals.append(Goal(number=NUMBER, what="memory with pages", values=memory, limit=160, worst=True, unit=" MiB"))
    start = "start with pages / without"
    grid.goals.append(Goal(number=NUMBER, what=start, values=grid.ratio(Ours.name, READY), limit=1.2))
    return [grid]


def _pages(client: httpx.Client, url: str) -> Mapping[str, float]:
    row, largest = {}, 0
    for column, path in PAGES.items():
        times = []
        for _ in range(ASKED + 1):
            began = time.perf_counter()
            with client.stream("GET", f"{url}{path}", headers=BROWSER) as answer:
                answer.raise_for_status()
                largest = max(largest, sum(len(block) for block in answer.iter_raw()))
            times.append(time.perf_counter() - began)
        row[column] = 1000 * statistics.median(times[1:])
    return {**row, LARGEST: largest / 1000}
