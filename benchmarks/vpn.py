"""A table of a project of forty packages whose upstream is behind a VPN: without us, the first time, and again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.client import install
from benchmarks.cold import slow_link
from benchmarks.index import GROUPS, make
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxStatic
from benchmarks.upstream import serving

NUMBER = 15
WITHOUT, STATIC = "without us", NginxStatic.name
FIRST, AGAIN = "first, s", "again, s"


def vpn(bench: Bench) -> list[Grid]:
    """``uv pip install --no-cache`` of all packages, over the slow link or from what is here."""
    scale = bench.scale
    index = make(bench.work / "vpn/index", scale.project)
    count, wanted = index.count(*GROUPS), index.wanted(*GROUPS)
    columns = (FIRST, AGAIN, "again: MB fetched", "failed")
    title = f"Behind a VPN: {count} packages, {index.megabytes(*GROUPS):.0f} MB"
    grid = Grid(title=title, columns=columns, base=WITHOUT, ratios=(FIRST, AGAIN))
    with ExitStack() as stack:
        upstream = stack.enter_context(serving(index, kind="upstream", rtt=scale.rtt, rate=scale.rate))
        static = stack.enter_context(bench.up(NginxStatic, upstream=upstream))

        def without() -> Mapping[str, float]:
            done = [install(bench, f"{upstream.slow.origin}/simple/", wanted) for _ in range(2)]
            return _row(done[0].seconds, done[1].seconds, done[0].failed + done[1].failed)

        def from_disk() -> Mapping[str, float]:
            done = [install(bench, static.simple_url, wanted) for _ in range(2)]
            return {AGAIN: done[1].seconds, "failed": done[0].failed + done[1].failed}

        def ours() -> Mapping[str, float]:
            with bench.up(Ours, upstream=upstream, origin=upstream.slow.origin) as peer:
                first = install(bench, peer.simple_url, wanted)
                upstream.forget()
                again = install(bench, peer.simple_url, wanted)
                fetched = upstream.asked().megabytes
            return {**_row(first.seconds, again.seconds, first.failed + again.failed), "again: MB fetched": fetched}

        in_turns(grid, {WITHOUT: without, STATIC: from_disk, Ours.name: ours}, rounds=scale.few)
    grid.notes.append(f"{slow_link(bench)} *{STATIC}*: the same files on this machine.")
    grid.goals = [
        Goal(number=NUMBER, what="VPN: first / without us", values=grid.ratio(Ours.name, FIRST), limit=1.1),
        Goal(number=NUMBER, what=f"VPN: again / {STATIC}", values=grid.ratio(Ours.name, AGAIN, STATIC), limit=1.15),
        Goal(
            number=NUMBER,
            what="VPN: without us / again",
            values=[1 / ratio for ratio in grid.ratio(Ours.name, AGAIN)],
            limit=10,
            at_least=True,
        ),
        Goal(number=NUMBER, what="VPN: failed", values=grid.of(Ours.name, "failed"), limit=0, worst=True),
    ]
    return [grid]


def _row(first: float, again: float, failed: int) -> dict[str, float]:
    return {FIRST: first, AGAIN: again, "failed": failed}
