"""A table of what the rules of a mirror cost: warm pages and files, and a long page that is not there yet."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
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
SLICES = 5
"""Rounds of load."""
LONG = tuple(f"bench-ruled-page-{number}" for number in range(4))


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
    """Both run side by side, with the same files, and are loaded in turns: a busy machine slows both alike."""
    links = bench.scale.long_page
    cpu = f"{links} links: CPU, s"
    base, ruled = Ours.name, OursGuarded.name
    grid = Grid(title="What rules cost (requests/s)", columns=(PAGE, FILE, cpu, "not 2xx"), base=base)
    grid.ratios = (PAGE, FILE)
    index = bench.promising.index
    for name in LONG:
        add(index, name, size=2000, links=links)
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=120, **LOCAL))
        peers = [stack.enter_context(bench.up(kind, upstream=bench.promising)) for kind in (Ours, OursGuarded)]
        for name in LONG:
            for peer in peers:
                grid.add(peer.name, {cpu: _cold(peer, client, name)})

        def loaded(peer: Ours) -> Mapping[str, float]:
            page = f"{peer.simple_url}{index.usual}/"
            file = file_url(peer.simple_url, index.longest, index.wheels[index.longest].filename)
            row = {"not 2xx": 0.0}
            for url, column, headers in ((page, PAGE, JSON), (file, FILE, None)):
                for _ in range(2):
                    client.get(url, headers=headers, follow_redirects=True).raise_for_status()
                done = rate(url, connections=8, seconds=bench.scale.seconds, headers=headers)
                row[column] = done.requests
                row["not 2xx"] += done.failed
            return row

        in_turns(grid, {peer.name: partial(loaded, peer) for peer in peers}, rounds=SLICES)
    grid.notes.append(
        f"A cooldown of seven days and {RULES} names and patterns that are denied, none of which is about the files. "
        "CPU: of all processes of the server, for a cold page."
    )
    for column in (PAGE, FILE):
        what = f"warm {column}: time with rules / without"
        values = [1 / ratio for ratio in grid.ratio(ruled, column)]
        grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=1.05))
    more = [with_ - without for with_, without in zip(grid.of(ruled, cpu), grid.of(base, cpu), strict=False)]
    grid.goals.append(
        Goal(number=NUMBER, what=f"a cold page of {links} links: CPU more", values=more, limit=0.02, unit=" s")
    )
    return [grid]


def _cold(peer: Ours, client: httpx.Client, name: str) -> float:
    """CPU seconds of the server for a page that nobody has asked for."""
    pids = peer.pids()
    before = settled_cpu(pids)
    client.get(f"{peer.simple_url}{name}/", headers=JSON).raise_for_status()
    return settled_cpu(pids) - before
