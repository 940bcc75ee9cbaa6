"""Tables of what is there already: pages and files under load, and installing from them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version

import httpx

from benchmarks.bench import Bench
from benchmarks.client import file_url, install, install_well, page, pip_download
from benchmarks.index import GROUPS
from benchmarks.load import JSON, rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import LOCAL, Peer
from benchmarks.peers.ours import Ours

BASE = "nginx static"
PIP = 14
PAGES = {"page c1": 1, "page c8": 8, "page c32": 32}
FILES = {"file c1, MB/s": 1, "file c8, MB/s": 8}
LONG = "long page c8"


def serving(bench: Bench) -> list[Grid]:
    """Requests a second for a page, megabytes a second for a wheel."""
    links = bench.scale.size.links
    grid = Grid(title="Warm serving (requests/s)", columns=(*PAGES, LONG, *FILES, "not 2xx"), base=BASE, ratios=None)
    grid.ratios = (*PAGES, LONG, *FILES)
    with ExitStack() as stack:
        peers = all_warm(bench, grid, stack)
        in_turns(grid, {peer.name: partial(_rates, bench, peer) for peer in peers}, rounds=bench.scale.rounds)
        ranged = [_range(bench, peer) for peer in peers if isinstance(peer, Ours)]
    grid.notes.append(
        f"Pages are asked for as JSON; the long one has {links} links. The file has {_megabytes(bench):.1f} MB."
    )
    for column in (*PAGES, LONG):
        grid.goals.append(_goal(grid, 2, column, 0.8))
    for column in FILES:
        grid.goals.append(_goal(grid, 3, column, 0.9))
    what = "`Range` on a warm file is answered by 206, the bytes asked for"
    grid.goals.append(Goal(number=3, what=what, values=ranged, limit=1, at_least=True, worst=True))
    return [grid]


def _goal(grid: Grid, number: int, column: str, limit: float) -> Goal:
    what = f"warm {column.removesuffix(', MB/s')} / {BASE}"
    return Goal(number=number, what=what, values=grid.ratio(Ours.name, column), limit=limit, at_least=True)


def _megabytes(bench: Bench) -> float:
    return len(bench.index.wheels[bench.index.longest].content) / 1e6


def all_warm(bench: Bench, grid: Grid, stack: ExitStack) -> list[Peer]:
    """The peers that can be measured, with everything in them."""
    peers = bench.all_up(bench.peers, grid, stack)
    for name, peer in peers.items():
        with grid.measuring(name):
            _warm(bench, peer)
    return [peer for name, peer in peers.items() if name not in grid.lost]


def _warm(bench: Bench, peer: Peer) -> None:
    install_well(bench, peer.simple_url, bench.index.wanted(*GROUPS))
    for _ in range(2):
        for project in (bench.index.usual, bench.index.longest):
            page(peer.simple_url, project)


def _rates(bench: Bench, peer: Peer) -> Mapping[str, float]:
    index, seconds = bench.index, bench.scale.seconds
    usual, longest = f"{peer.simple_url}{index.usual}/", f"{peer.simple_url}{index.longest}/"
    file = file_url(peer.simple_url, index.longest, index.wheels[index.longest].filename)
    pages = {name: rate(usual, connections=count, seconds=seconds, headers=JSON) for name, count in PAGES.items()}
    pages[LONG] = rate(longest, connections=8, seconds=seconds, headers=JSON)
    files = {name: rate(file, connections=count, seconds=seconds) for name, count in FILES.items()}
    failed = sum(each.failed for each in (*pages.values(), *files.values()))
    return {
        **{name: each.requests for name, each in pages.items()},
        **{name: each.megabytes for name, each in files.items()},
        "not 2xx": failed,
    }


def _range(bench: Bench, peer: Peer) -> float:
    """1 when a part of a file comes as that part."""
    wheel = bench.index.wheels[bench.index.longest]
    url = file_url(peer.simple_url, wheel.project, wheel.filename)
    answer = httpx.get(url, headers={"Range": "bytes=100-199"}, timeout=60, **LOCAL)
    return float(answer.status_code == 206 and answer.content == wheel.content[100:200])


def pip_downloading(bench: Bench) -> list[Grid]:
    """``pip download`` from servers that have everything, by its own addresses: one alone, and several at once."""
    groups = ("small", "medium")
    index, many = bench.index, bench.scale.clients[0]
    count = index.count(*groups)
    one, together = f"one, {count} wheels, s", f"{many} at once, {count} wheels each, s"
    grid = Grid(title="Warm download by pip", columns=(one, together, "failed"), base=BASE, ratios=(one, together))

    def measured(peer: Peer) -> Mapping[str, float]:
        alone = pip_download(bench, peer.simple_url, index.wanted(*groups), wheels=count)
        crowd = pip_download(bench, peer.simple_url, index.wanted(*groups), wheels=count, clients=many)
        return {one: alone.seconds, together: crowd.seconds, "failed": alone.failed + crowd.failed}

    with ExitStack() as stack:
        peers = all_warm(bench, grid, stack)
        in_turns(grid, {peer.name: partial(measured, peer) for peer in peers}, rounds=bench.scale.rounds)
    grid.notes.append(f"pip {version('pip')}, which quotes the `+` of addresses; most of the time is its own.")
    for column, what in ((one, "pip, warm download"), (together, f"pip, {many} at once, warm")):
        values = grid.ratio(Ours.name, column)
        grid.goals.append(Goal(number=PIP, what=f"{what} / {BASE}", values=values, limit=1.2))
    grid.goals.append(
        Goal(number=PIP, what="pip, warm: failed", values=grid.of(Ours.name, "failed"), limit=0, worst=True)
    )
    return [grid]


def installing(bench: Bench) -> list[Grid]:
    """``uv pip install --no-cache`` from servers that have everything: one alone, and several at once."""
    index, many = bench.index, bench.scale.clients[0]
    one = f"one, {index.count(*GROUPS)} wheels, s"
    together = f"{many} at once, {index.count('small', 'medium')} wheels each, s"
    grid = Grid(title="Warm install", columns=(one, together, "failed"), base=BASE, ratios=(one, together))

    def measured(peer: Peer) -> Mapping[str, float]:
        alone = install(bench, peer.simple_url, index.wanted(*GROUPS))
        crowd = install(bench, peer.simple_url, index.wanted("small", "medium"), clients=many)
        return {one: alone.seconds, together: crowd.seconds, "failed": alone.failed + crowd.failed}

    with ExitStack() as stack:
        peers = all_warm(bench, grid, stack)
        in_turns(grid, {peer.name: partial(measured, peer) for peer in peers}, rounds=bench.scale.rounds)
    grid.goals = [
        Goal(number=4, what=f"warm install / {BASE}", values=grid.ratio(Ours.name, one), limit=1.15),
        Goal(number=4, what=f"{many} at once, warm / {BASE}", values=grid.ratio(Ours.name, together), limit=1.3),
    ]
    return [grid]
