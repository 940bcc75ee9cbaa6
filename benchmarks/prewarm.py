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
from benchmarks.client import install_well, lock_of
from benchmarks.cold import DIRECT
from benchmarks.index import GROUPS, make
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.ours import Ours
from benchmarks.upstream import Asked, Upstream, serving

FIRST, FETCHED, TIMES = "first, s", "MB fetched", "wheel: most, times"
AGAIN, FETCHED_AGAIN = "second, s", "second: bytes fetched"
WARM = "deployer warm"
LOCKED = "deployer warm, of uv.lock"


def prewarm(bench: Bench) -> list[Grid]:
    """Fetch everything into an empty server, and once more; uv installs the same from the upstream itself."""
    index = make(bench.work / "prewarm/index", bench.scale.prewarmed)
    count, megabytes = index.count(*GROUPS), index.megabytes(*GROUPS)
    grid = Grid(
        title=f"Prewarm ({count} wheels, {megabytes:.0f} MB)",
        columns=(FIRST, FETCHED, TIMES, AGAIN, FETCHED_AGAIN),
        base=DIRECT,
        ratios=(FIRST,),
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
        f"*{DIRECT}*: `uv pip install --no-cache` from the upstream. The others: `deployer warm -r` into a server "
        "that has nothing; then the same command once more."
    )
    for row in (WARM, LOCKED):
        times = grid.of(row, TIMES)
        grid.goals += [
            Goal(number=9, what=f"`{row}` / {DIRECT}", values=grid.ratio(row, FIRST), limit=1.2),
            Goal(
                number=9, what=f"`{row}`: fetches of any wheel, most", values=grid.of(row, TIMES), limit=1, worst=True
            ),
            Goal(number=9, what=f"`{row}`, second run", values=grid.of(row, AGAIN), limit=2, unit=" s"),
            Goal(number=9, what=f"`{row}`, second run, from the upstream", values=grid.of(row, FETCHED_AGAIN), limit=0),
        ]
    return [grid]


def _direct(bench: Bench, upstream: Upstream, wanted: Sequence[str]) -> Mapping[str, float]:
    upstream.forget()
    seconds = install_well(bench, f"{upstream.origin}/simple/", wanted)
    return {FIRST: seconds, **_counted(upstream.asked())}


def _warmed(bench: Bench, upstream: Upstream, source: Path, count: int) -> Mapping[str, float]:
    with bench.up(Ours, upstream=upstream) as peer:
        assert peer.made is not None
        upstream.forget()
        first, found = _run(peer, source)
        asked = _counted(upstream.asked())
        if len(found["fetched"]) + found["cached"] != count:
            raise SystemExit(f"deployer warm found {found} instead of {count} wheels")
        upstream.forget()
        again, found = _run(peer, source)
        if found["cached"] != count:
            raise SystemExit(f"the second deployer warm found {found} instead of {count} wheels")
        return {FIRST: first, **asked, AGAIN: again, FETCHED_AGAIN: upstream.asked().sent}


def _run(peer: Ours, source: Path) -> tuple[float, Any]:
    """Seconds of one command, and ``data`` of its envelope."""
    assert peer.made is not None
    started = time.perf_counter()
    said = peer.made.run(["warm", "-r", str(source), "--json"])
    return time.perf_counter() - started, json.loads(said)["data"]


def _counted(asked: Asked) -> dict[str, float]:
    return {FETCHED: asked.megabytes, TIMES: max(asked.wheels.values(), default=0)}
