"""A table of ``deployer warm``: what a prewarm costs beside uv, which downloads the same for itself."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.client import LONGER, install, lock_of, well
from benchmarks.cold import DIRECT, slow_link
from benchmarks.index import GROUPS, make
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.ours import Ours
from benchmarks.upstream import Upstream, serving

SLOW, FAST = "slow, s", "fast, s"
FETCHED, TIMES = "slow: MB fetched", "wheel: most, times"
AGAIN, FETCHED_AGAIN = "second, s", "second: bytes fetched"
WARM = "`deployer warm`"
LOCKED = "`deployer warm`, of uv.lock"


def prewarm(bench: Bench) -> list[Grid]:
    """Fetch everything into an empty server, and once more; uv installs the same from the upstream itself."""
    index = make(bench.work / "prewarm/index", bench.scale.prewarmed)
    count, megabytes = index.count(*GROUPS), index.megabytes(*GROUPS)
    grid = Grid(
        title=f"Prewarm ({count} wheels, {megabytes:.0f} MB)",
        columns=(SLOW, FETCHED, TIMES, FAST, AGAIN, FETCHED_AGAIN),
        base=DIRECT,
        ratios=(SLOW, FAST),
    )
    with serving(index, kind="upstream", rtt=bench.scale.rtt, rate=bench.scale.rate) as upstream:
        wanted = index.wanted(*GROUPS)
        room = Path(tempfile.mkdtemp(prefix="prewarm-", dir=bench.work))
        requirements = room / "requirements.txt"
        requirements.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        locked = lock_of(bench, f"{upstream.origin}/simple/", wanted, room)
        cases = {
            DIRECT: partial(_direct, bench, upstream, wanted),
            WARM: partial(_warmed, bench, upstream, requirements, count),
            LOCKED: partial(_warmed, bench, upstream, locked, count),
        }
        in_turns(grid, cases, rounds=bench.scale.few)
    grid.notes.append(
        f"{slow_link(bench)} *{DIRECT}*: `uv pip install --no-cache` from the upstream. The others: `deployer warm "
        "-r` into a server that has nothing; then the same command once more."
    )
    for row in (WARM, LOCKED):
        grid.goals += [
            _goal(f"{row}, slow link / {DIRECT}", grid.ratio(row, SLOW), 1.2),
            _goal(f"{row}, fast link / {DIRECT}", grid.ratio(row, FAST), 1.2),
            _goal(f"{row}: fetches of any wheel, most", grid.of(row, TIMES), 1, worst=True),
            _goal(f"{row}, second run", grid.of(row, AGAIN), 2, unit=" s"),
            _goal(f"{row}, second run: bytes from the upstream", grid.of(row, FETCHED_AGAIN), 0, worst=True),
        ]
    return [grid]


def _goal(what: str, values: Sequence[float], limit: float, *, worst: bool = False, unit: str = "") -> Goal:
    return Goal(number=9, what=what, values=values, limit=limit, worst=worst, unit=unit)


def _direct(bench: Bench, upstream: Upstream, wanted: Sequence[str]) -> Mapping[str, float]:
    seconds = {}
    for column, origin in ((FAST, upstream.origin), (SLOW, upstream.slow.origin)):
        upstream.forget()
        seconds[column] = well(install(bench, f"{origin}/simple/", wanted, patience=LONGER))
    asked = upstream.asked()
    return {**seconds, FETCHED: asked.megabytes, TIMES: max(asked.wheels.values())}


def _warmed(bench: Bench, upstream: Upstream, source: Path, count: int) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for column, origin in ((FAST, upstream.origin), (SLOW, upstream.slow.origin)):
        with bench.up(Ours, upstream=upstream, origin=origin) as peer:
            upstream.forget()
            seconds, said = _run(peer, source)
            asked = upstream.asked()
            if len(said["fetched"]) + said["cached"] != count:
                raise SystemExit(f"deployer warm found {said} instead of {count} wheels")
            found |= {column: seconds, FETCHED: asked.megabytes, TIMES: max(asked.wheels.values(), default=0)}
            upstream.forget()
            seconds, said = _run(peer, source)
            if said["cached"] != count:
                raise SystemExit(f"the second deployer warm found {said} instead of {count} wheels")
            found |= {AGAIN: seconds, FETCHED_AGAIN: upstream.asked().sent}
    return found


def _run(peer: Ours, source: Path) -> tuple[float, Any]:
    """Seconds of one command, and ``data`` of its envelope."""
    assert peer.made is not None
    started = time.perf_counter()
    said = peer.made.run(["warm", "-r", str(source), "--json"])
    return time.perf_counter() - started, json.loads(said)["data"]
