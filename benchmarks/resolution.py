"""Tables of resolution: what ``uv pip compile`` and ``uv lock`` need, from empty servers and from warm ones."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from benchmarks.bench import Bench
from benchmarks.client import Done, lock, resolve, well
from benchmarks.cold import DIRECT, cases, empty, per_wheel, slow_link
from benchmarks.index import GROUPS
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import Peer
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxStatic
from benchmarks.peers.rust import Pypiron
from benchmarks.upstream import Upstream

OVER_SLOW = "direct, slow link"
COMPILE, LOCK = "compile, s", "lock, s"
NUMBER = 9


def cold(bench: Bench) -> list[Grid]:
    """One ``uv pip compile`` through an empty server, on a fast link and on a slow one."""
    return [_cold(bench, upstream) for upstream in (bench.promising, bench.bare)]


def _cold(bench: Bench, upstream: Upstream) -> Grid:
    index = upstream.index
    seconds = {speed: f"{speed}, s" for speed in ("fast", "slow")}
    sent = {speed: f"{speed}: MB sent" for speed in seconds}
    wheels = "fast: KiB of wheels"
    columns = (seconds["fast"], sent["fast"], wheels, seconds["slow"], sent["slow"], "failed")
    title = f"Cold `uv pip compile`, {index.count(*GROUPS)} packages, {upstream.kind}"
    grid = Grid(title=title, columns=columns, base=DIRECT, ratios=(*seconds.values(), *sent.values()))

    def act(simple_url: str) -> Done:
        return _resolve(bench, upstream, simple_url)

    for speed, origin in (("fast", upstream.origin), ("slow", upstream.slow.origin)):

        def through(kind: type[Peer] | None, speed: str = speed, origin: str = origin) -> Mapping[str, float]:
            done, asked = empty(bench, kind, upstream, act, origin=origin)
            row = {seconds[speed]: done.seconds, sent[speed]: asked.megabytes, "failed": done.failed}
            return row | ({wheels: asked.of_wheels / 1024} if speed == "fast" else {})

        in_turns(grid, cases(bench, through), rounds=bench.scale.few if speed == "slow" else bench.scale.rounds)
    grid.notes.append(
        f"{slow_link(bench)} Sent: by the upstream, headers included. "
        f"All wheels together have {index.megabytes(*GROUPS):.0f} MB."
    )
    for speed in seconds:
        for column, limit in ((seconds[speed], 1.1), (sent[speed], 1.05)):
            what = f"cold compile, {column}, {upstream.kind} / {DIRECT}"
            grid.goals.append(Goal(number=NUMBER, what=what, values=grid.ratio(Ours.name, column), limit=limit))
        what = f"cold compile, {seconds[speed]}, {upstream.kind} / {Pypiron.name}"
        beside = grid.ratio(Ours.name, seconds[speed], Pypiron.name)
        grid.goals.append(Goal(number=NUMBER, what=what, values=beside, limit=1))
    failed = grid.of(Ours.name, "failed")
    grid.goals.append(
        Goal(number=NUMBER, what=f"cold compile, {upstream.kind}: failed", values=failed, limit=0, worst=True)
    )
    if upstream is bench.bare:
        values = grid.of(Ours.name, wheels)
        grid.goals.append(per_wheel(NUMBER, "cold compile: sent of each wheel", values, index.count(*GROUPS)))
    return grid


def warm(bench: Bench) -> list[Grid]:
    """``uv pip compile`` and ``uv lock`` from servers that have answered both before."""
    return [_warm(bench, upstream) for upstream in (bench.promising, bench.bare)]


def _warm(bench: Bench, upstream: Upstream) -> Grid:
    title = f"Warm `uv pip compile` and `uv lock`, {upstream.index.count(*GROUPS)} packages, {upstream.kind}"
    grid = Grid(title=title, columns=(COMPILE, LOCK), base=NginxStatic.name)

    def measured(simple_url: str) -> Mapping[str, float]:
        return {
            COMPILE: well(_resolve(bench, upstream, simple_url)),
            LOCK: well(_lock(bench, upstream, simple_url)),
        }

    with ExitStack() as stack:
        peers = bench.all_up(bench.peers, grid, stack, upstream=upstream)
        for name, peer in peers.items():
            with grid.measuring(name):
                measured(peer.simple_url)
        turns = {OVER_SLOW: partial(measured, f"{upstream.slow.origin}/simple/")}
        turns |= {name: partial(measured, peer.simple_url) for name, peer in peers.items()}
        in_turns(grid, turns, rounds=2 * bench.scale.rounds)
    grid.notes.append(f"*{OVER_SLOW}*: uv asks the upstream itself. {slow_link(bench)}")
    for column in (COMPILE, LOCK):
        for base, limit in ((OVER_SLOW, 0.3), (NginxStatic.name, 1.1), (Pypiron.name, 1)):
            values = grid.ratio(Ours.name, column, base)
            what = f"warm {column.removesuffix(', s')}, {upstream.kind} / {base}"
            grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=limit))
    return grid


def _resolve(bench: Bench, upstream: Upstream, simple_url: str) -> Done:
    return resolve(bench, simple_url, upstream.index.wanted(*GROUPS), pins=upstream.index.count(*GROUPS))


def _lock(bench: Bench, upstream: Upstream, simple_url: str) -> Done:
    return lock(bench, simple_url, upstream.index.wanted(*GROUPS), packages=upstream.index.count(*GROUPS))
