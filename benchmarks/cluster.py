"""A table of a cluster on one host: what its balancer costs, on the same cores."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench
from benchmarks.client import file_url, page
from benchmarks.load import JSON, rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import Peer
from benchmarks.peers.ours import Ours

NUMBER = 23
PAGES = {"page c1": 1, "page c8": 8, "page c60": 60}
FILES = {"file c1, MB/s": 1, "file c8, MB/s": 8}


@dataclass(kw_only=True)
class OursCluster(Ours):
    """``deployer up`` with two replicas: three members and the balancer before them."""

    name = "deployer, 3 members"
    more: tuple[str, ...] = ("--set", "cluster.replicas=2")


def reads(bench: Bench) -> list[Grid]:
    """Requests a second for a warm page, megabytes a second for a wheel."""
    columns = (*PAGES, *FILES)
    grid = Grid(title="Warm reads of a cluster on one host (requests/s)", columns=(*columns, "not 2xx"))
    grid.base, grid.ratios = Ours.name, columns
    with ExitStack() as stack:
        peers = bench.all_up((Ours, OursCluster), grid, stack)
        in_turns(grid, {name: partial(_rates, bench, peer) for name, peer in peers.items()}, rounds=bench.scale.rounds)
    grid.notes.append(
        "The members, the balancer and the client share the cores, so the ratio is what the balancer costs. Members on "
        "cores of their own are simulated: docs/explanation/scale.md."
    )
    for column in columns:
        what = f"{column.removesuffix(', MB/s')}: 3 members on the same cores / 1"
        values = grid.ratio(OursCluster.name, column)
        grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=1.0, at_least=True))
    return [grid]


def _rates(bench: Bench, peer: Peer) -> Mapping[str, float]:
    index, seconds = bench.index, bench.scale.seconds
    file = file_url(peer.simple_url, index.longest, index.wheels[index.longest].filename)
    for _ in range(6):  # each member has the page
        for project in (index.usual, index.longest):
            page(peer.simple_url, project)
    rate(file, connections=4, seconds=seconds)
    usual = f"{peer.simple_url}{index.usual}/"
    pages = {name: rate(usual, connections=count, seconds=seconds, headers=JSON) for name, count in PAGES.items()}
    files = {name: rate(file, connections=count, seconds=seconds) for name, count in FILES.items()}
    return {
        **{name: each.requests for name, each in pages.items()},
        **{name: each.megabytes for name, each in files.items()},
        "not 2xx": sum(each.failed for each in (*pages.values(), *files.values())),
    }
