"""A table of what the rules of a mirror cost: warm pages and files, and a long page that is not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import httpx

from benchmarks.bench import Bench
from benchmarks.client import file_url
from benchmarks.index import add
from benchmarks.load import JSON, rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import LOCAL
from benchmarks.peers.ours import Ours
from benchmarks.processes import settled_cpu

NUMBER = 20
PAGE, FILE = "page c8", "file c8"
RULES = 1000
LONG = tuple(f"bench-ruled-page-{number}" for number in range(3))


@dataclass(kw_only=True)
class OursGuarded(Ours):
    """Ours with a cooldown, and a list of what is denied."""

    name = f"deployer with {RULES} rules"

    def start(self) -> None:
        super().start()
        assert self.made is not None
        denied = [*(f"evil-{number}" for number in range(RULES - 100)), *(f"bad-{number}-*" for number in range(100))]
        rules = ("min_age=7d", f"deny={','.join(denied)}")
        self.made.run(["mirror", "modify", "root/pypi", *rules, "--engine", self.engine])


def guard(bench: Bench) -> list[Grid]:
    """Both after each other, with the same files."""
    links = bench.scale.long_page
    cpu = f"{links} links: CPU, s"
    base = Ours.name
    grid = Grid(title="What rules cost (requests/s)", columns=(PAGE, FILE, cpu, "not 2xx"), base=base)
    grid.ratios = (PAGE, FILE)
    for name in LONG:
        add(bench.promising.index, name, size=2000, links=links)

    def through(kind: type[Ours]) -> Mapping[str, float]:
        index, seconds = bench.promising.index, bench.scale.seconds
        with bench.up(kind, upstream=bench.promising) as peer, httpx.Client(timeout=120, **LOCAL) as client:
            pids, row = peer.pids(), {"not 2xx": 0.0}
            before = settled_cpu(pids)
            for name in LONG:
                client.get(f"{peer.simple_url}{name}/", headers=JSON).raise_for_status()
            row[cpu] = (settled_cpu(pids) - before) / len(LONG)
            page = f"{peer.simple_url}{index.usual}/"
            file = file_url(peer.simple_url, index.longest, index.wheels[index.longest].filename)
            for url, column, headers in ((page, PAGE, JSON), (file, FILE, None)):
                for _ in range(2):
                    client.get(url, headers=headers, follow_redirects=True).raise_for_status()
                done = rate(url, connections=8, seconds=seconds, headers=headers)
                row[column] = done.requests
                row["not 2xx"] += done.failed
        return row

    turns = {kind.name: partial(through, kind) for kind in (Ours, OursGuarded)}
    in_turns(grid, turns, rounds=bench.scale.rounds)
    grid.notes.append(
        f"A cooldown of seven days and {RULES} names and patterns that are denied, none of which is about the files. "
        f"CPU: of all processes of the server, for each of {len(LONG)} cold pages."
    )
    ruled = OursGuarded.name
    for column in (PAGE, FILE):
        what = f"warm {column}: time with rules / without"
        values = [1 / ratio for ratio in grid.ratio(ruled, column)]
        grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=1.05))
    more = [with_ - without for with_, without in zip(grid.of(ruled, cpu), grid.of(base, cpu), strict=False)]
    grid.goals.append(
        Goal(number=NUMBER, what=f"a cold page of {links} links: CPU more", values=more, limit=0.02, unit=" s")
    )
    return [grid]
