"""Tables of what one thing costs that is not there yet: a page, a long page, a file, the first byte of a huge one."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import httpx

from benchmarks.bench import Bench
from benchmarks.client import file_url
from benchmarks.cold import DIRECT, cases, mirrors, slow_link
from benchmarks.index import add
from benchmarks.load import JSON
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import LOCAL, Peer
from benchmarks.peers.ours import Ours
from benchmarks.processes import extra_memory_from_now_on, settled_cpu
from tests.upstream import Distribution

NUMBER = 10
PAGES = tuple(f"bench-page-{number:02d}" for number in range(20))
USUAL = 500
"""Links of each of these pages."""
LONG, HUGE = "bench-long-page", "bench-huge-file"
PAGE_COMMITS, PER_LINK = "commits a page", "CPU a link, µs"
FILE_COMMITS, CHANGELOG, HEAD = "commits a file", "changelog a file, kB", "HEAD: bytes of wheels sent"
FIRST, WHOLE, FIRST_SLOW = "fast: first byte, ms", "fast: last byte, s", "slow: first byte, ms"


def pages(bench: Bench) -> list[Grid]:
    """Pages of an empty server, each once, one after the other, as JSON; then a long one."""
    links, usual = bench.scale.long_page, min(USUAL, bench.scale.long_page)
    cpu, memory = f"{links} links: CPU, s", f"{links} links: extra memory, MiB"
    grid = Grid(title="What a cold page costs", columns=(PAGE_COMMITS, PER_LINK, cpu, memory))
    for name in (*PAGES, LONG):
        add(bench.promising.index, name, size=2000, links=links if name == LONG else usual)
    total = usual * len(PAGES)

    def through(kind: type[Peer]) -> Mapping[str, float]:
        with bench.up(kind, upstream=bench.promising) as peer, httpx.Client(timeout=120, **LOCAL) as client:
            pids = peer.pids()
            before, began = Commits.of(peer), settled_cpu(pids)
            for name in PAGES:
                client.get(f"{peer.simple_url}{name}/", headers=JSON).raise_for_status()
            done = settled_cpu(pids)
            row = {PER_LINK: 1e6 * (done - began) / total}
            if before is not None and (after := Commits.of(peer)) is not None:
                row[PAGE_COMMITS] = (after.serial - before.serial) / len(PAGES)
            extra = extra_memory_from_now_on(pids)
            client.get(f"{peer.simple_url}{LONG}/", headers=JSON).raise_for_status()
            return row | {cpu: settled_cpu(pids) - done, memory: extra()}

    turns = {kind.name: partial(through, kind) for kind in mirrors(bench)}
    in_turns(grid, turns, rounds=bench.scale.few)
    grid.notes.append(
        f"{len(PAGES)} pages of {usual} links, and one of {links}; each is fetched once, as JSON packed by "
        "gzip. CPU: of all processes of the server, until they are idle. Extra memory: what they had at their worst "
        "moment, less what they had before."
    )
    ours = partial(grid.of, Ours.name)
    grid.goals = [
        Goal(number=NUMBER, what="a cold page: commits", values=ours(PAGE_COMMITS), limit=0, worst=True),
        Goal(number=NUMBER, what="a cold page: CPU a link", values=ours(PER_LINK), limit=20, unit=" µs"),
        Goal(number=NUMBER, what=f"a cold page of {links} links: CPU", values=ours(cpu), limit=0.4, unit=" s"),
        Goal(number=NUMBER, what=f"a cold page of {links} links: memory", values=ours(memory), limit=80, unit=" MiB"),
    ]
    return [grid]


@dataclass(frozen=True, kw_only=True)
class Commits:
    """How far a devpi is: its serial, and the bytes of its changelog."""

    serial: int
    changelog: int

    @classmethod
    def of(cls, peer: Peer) -> Commits | None:
        """None for what is not devpi."""
        if peer.database is None:
            return None
        with contextlib.closing(sqlite3.connect(f"file:{peer.database}?mode=ro", uri=True, timeout=30)) as database:
            serial, changelog = database.execute("select max(serial), sum(length(data)) from changelog").fetchone()
        return cls(serial=serial, changelog=changelog)


def files(bench: Bench) -> list[Grid]:
    """Files of an empty server, one after the other, and one HEAD; then how soon a huge one begins."""
    return [_files(bench), _first_byte(bench)]


def _files(bench: Bench) -> Grid:
    upstream, count = bench.promising, bench.scale.cold_files
    grid = Grid(title="What a cold file costs", columns=(FILE_COMMITS, CHANGELOG, HEAD))
    asked_for, *fetched = list(upstream.index.wheels.values())[: count + 1]

    def through(kind: type[Peer]) -> Mapping[str, float]:
        with bench.up(kind, upstream=upstream) as peer, httpx.Client(timeout=120, **LOCAL) as client:
            urls = {wheel: file_url(peer.simple_url, wheel.project, wheel.filename) for wheel in (asked_for, *fetched)}
            pids = peer.pids()
            settled_cpu(pids)
            upstream.forget()
            client.head(urls[asked_for], follow_redirects=True).raise_for_status()
            settled_cpu(pids)
            row = {HEAD: float(upstream.asked().of_wheels)}
            before = Commits.of(peer)
            for wheel in fetched:
                _right(client.get(urls[wheel], follow_redirects=True), wheel)
            settled_cpu(pids)
            if before is not None and (after := Commits.of(peer)) is not None:
                row[FILE_COMMITS] = (after.serial - before.serial) / count
                row[CHANGELOG] = (after.changelog - before.changelog) / count / 1000
            return row

    turns = {kind.name: partial(through, kind) for kind in mirrors(bench)}
    in_turns(grid, turns, rounds=bench.scale.few)
    grid.notes.append(
        f"{count} wheels, of which the pages were fetched before. HEAD: for one more wheel of "
        f"{len(asked_for.content)} bytes; sent: by the upstream, without headers."
    )
    ours = partial(grid.of, Ours.name)
    grid.goals = [
        Goal(number=NUMBER, what="a cold file: commits", values=ours(FILE_COMMITS), limit=1, worst=True),
        Goal(number=NUMBER, what="a cold file: changelog", values=ours(CHANGELOG), limit=2, worst=True, unit=" kB"),
        Goal(number=NUMBER, what="HEAD of a cold file: bytes sent", values=ours(HEAD), limit=0, worst=True),
    ]
    return grid


def _right(answer: httpx.Response, wheel: Distribution) -> None:
    """Raises SystemExit when ``answer`` is not ``wheel``."""
    if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != wheel.sha256:
        raise SystemExit(f"{answer.url} is not {wheel.filename}: {answer.status_code}, {len(answer.content)} bytes")


def _first_byte(bench: Bench) -> Grid:
    upstream, megabytes = bench.promising, bench.scale.huge
    title = f"How soon a cold file of {megabytes:g} MB begins"
    grid = Grid(title=title, columns=(FIRST, WHOLE, FIRST_SLOW), base=DIRECT)
    filename = add(upstream.index, HUGE, size=int(megabytes * 1e6), links=5).filename

    def through(kind: type[Peer] | None) -> Mapping[str, float]:
        if kind is None:
            fast, slow = (f"{origin}/simple/" for origin in (upstream.origin, upstream.slow.origin))
            return _begins(fast, filename, whole=True) | _begins(slow, filename)
        with bench.up(kind, upstream=upstream) as peer:
            row = _begins(peer.simple_url, filename, whole=True)
        with bench.up(kind, upstream=upstream, origin=upstream.slow.origin) as peer:
            return row | _begins(peer.simple_url, filename)

    in_turns(grid, cases(bench, through), rounds=bench.scale.rounds)
    grid.notes.append(f"{slow_link(bench)} The page was fetched before; each connection is a new one.")
    for column in (FIRST, FIRST_SLOW):
        what = f"a cold file of {megabytes:g} MB, {column.removesuffix(', ms')} / {DIRECT}"
        grid.goals.append(Goal(number=NUMBER, what=what, values=grid.ratio(Ours.name, column), limit=1.2))
    return grid


def _begins(simple_url: str, filename: str, *, whole: bool = False) -> dict[str, float]:
    """When the first byte of the file comes; with ``whole``, also when the last one does."""
    url = file_url(simple_url, HUGE, filename)
    with httpx.Client(timeout=240, follow_redirects=True, **LOCAL) as client:
        started = time.perf_counter()
        with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer:
            answer.raise_for_status()
            chunks = answer.iter_raw()
            next(chunks)
            first = 1000 * (time.perf_counter() - started)
            if not whole:
                return {FIRST_SLOW: first}
            for _ in chunks:
                pass
    return {FIRST: first, WHOLE: time.perf_counter() - started}
