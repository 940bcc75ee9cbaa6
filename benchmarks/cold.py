"""Tables of what is not there yet: the first install, and many first installs at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from benchmarks.bench import Bench
from benchmarks.client import Done, install, resolve
from benchmarks.index import GROUPS
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import DevpiBehindNginx
from benchmarks.peers.ours import Ours
from benchmarks.upstream import Asked, Upstream

DIRECT = "direct"
FAILED = "failed clients"
PAGE, WHEEL, METADATA = "page: most, times", "wheel: most, times", "metadata: most, times"
OF_WHEELS = "KiB of wheels"


def first_install(bench: Bench) -> list[Grid]:
    """One install through an empty server, on a fast link and on a slow one."""
    index = bench.index
    columns = ("fast, s", "fast: MB fetched", "slow, s", "slow: MB fetched", "failed")
    title = f"First install ({index.count(*GROUPS)} wheels, {index.megabytes(*GROUPS):.0f} MB)"
    grid = Grid(title=title, columns=columns, base=DIRECT, ratios=("fast, s", "slow, s"))

    def everything(simple_url: str) -> Done:
        return install(bench, simple_url, index.wanted(*GROUPS))

    for speed, origin in (("fast", bench.origin), ("slow", bench.slow.origin)):

        def through(kind: type[Peer] | None, speed: str = speed, origin: str = origin) -> Mapping[str, float]:
            done, asked = empty(bench, kind, bench.upstream, everything, origin=origin)
            return {f"{speed}, s": done.seconds, f"{speed}: MB fetched": asked.megabytes, "failed": done.failed}

        in_turns(grid, cases(bench, through), rounds=bench.scale.few)
    grid.notes.append(f"{slow_link(bench)} *{DIRECT}*: uv asks the upstream itself.")
    grid.goals = [
        Goal(number=7, what="cold, slow link / direct", values=grid.ratio(Ours.name, "slow, s"), limit=1.2),
        Goal(number=7, what="cold, fast link / direct", values=grid.ratio(Ours.name, "fast, s"), limit=1.5),
    ]
    return [grid]


def slow_link(bench: Bench) -> str:
    """A note on what is meant by slow."""
    link = f"{1000 * bench.scale.rtt:.0f} ms round trip and {bench.scale.rate / 1e6:g} MB/s"
    return f"Slow: {link}, a handshake costs a round trip."


def stampede(bench: Bench) -> list[Grid]:
    """Many installers that all want the same of an empty server at the same moment."""
    grids = []
    for clients, groups in _crowds(bench):

        def act(simple_url: str, clients: int = clients, groups: Sequence[str] = groups) -> Done:
            return install(bench, simple_url, bench.index.wanted(*groups), clients=clients)

        count = bench.index.count(*groups)
        title = f"Cold stampede of {clients}, {count} wheels each"
        grid = _stampede(bench, title, bench.upstream, act)
        grid.notes.append(
            f"Needed: {count} pages, {count} core metadata files and {count} wheels, "
            f"{bench.index.megabytes(*groups):.0f} MB. Fetches: at the upstream."
        )
        grid.goals = _once(grid, 5, f"{clients} at once, cold", (PAGE, WHEEL, METADATA))
        grids.append(grid)
    return grids


def resolving_stampede(bench: Bench) -> list[Grid]:
    """Many ``uv pip compile`` of the same at the same moment, through an empty server."""
    with_metadata = [_resolving(bench, bench.promising, *crowd) for crowd in _crowds(bench)]
    return [*with_metadata, *(_resolving(bench, bench.bare, *crowd) for crowd in _crowds(bench))]


def _resolving(bench: Bench, upstream: Upstream, clients: int, groups: Sequence[str]) -> Grid:
    index, count = upstream.index, upstream.index.count(*groups)

    def act(simple_url: str) -> Done:
        return resolve(bench, simple_url, index.wanted(*groups), pins=count, clients=clients)

    title = f"Cold stampede of {clients} `uv pip compile`, {count} packages each, {upstream.kind}"
    grid = _stampede(bench, title, upstream, act)
    grid.notes.append(f"Needed: {count} pages, and {count} core metadata files or parts of {count} wheels.")
    what = f"{clients} at once, cold compile, {upstream.kind}"
    grid.goals = _once(grid, 12, what, (PAGE,) if upstream is bench.bare else (PAGE, METADATA))
    grid.goals.append(per_wheel(12, f"{what}: read of each wheel", grid.of(Ours.name, OF_WHEELS), count))
    return grid


def per_wheel(number: int, what: str, kibibytes: Sequence[float], count: int) -> Goal:
    """A goal for what is read of each wheel in order to know what it requires."""
    values = [value / count for value in kibibytes]
    return Goal(number=number, what=what, values=values, limit=64, worst=True, unit=" KiB")


def _crowds(bench: Bench) -> Iterator[tuple[int, Sequence[str]]]:
    """How many clients at once, and the groups of packages that each of them wants."""
    for number, clients in enumerate(bench.scale.clients):
        yield clients, ["small", "medium"] if number == 0 else ["small"]


def _stampede(bench: Bench, title: str, upstream: Upstream, act: Callable[[str], Done]) -> Grid:
    once = (PAGE, WHEEL, METADATA)
    totals = ("page fetches", "wheel fetches", "metadata fetches", OF_WHEELS, "MB sent")
    grid = Grid(title=title, columns=("wall s", FAILED, *once, *totals), base=DIRECT, ratios=("wall s",))

    def through(kind: type[Peer] | None) -> Mapping[str, float]:
        done, asked = empty(bench, kind, upstream, act)
        counted = (asked.pages, asked.wheels, asked.metadata)
        return {
            "wall s": done.seconds,
            FAILED: done.failed,
            **{column: max(fetches.values(), default=0) for column, fetches in zip(once, counted, strict=True)},
            **{column: fetches.total() for column, fetches in zip(totals, counted, strict=False)},
            OF_WHEELS: asked.of_wheels / 1024,
            "MB sent": asked.megabytes,
        }

    return in_turns(grid, cases(bench, through), rounds=bench.scale.few)


def _once(grid: Grid, number: int, what: str, columns: Sequence[str]) -> list[Goal]:
    """Nobody failed, and nothing of ``columns`` was fetched twice."""
    failed = grid.of(Ours.name, FAILED)
    goals = [Goal(number=number, what=f"{what}: failed", values=failed, limit=0, worst=True)]
    for column in columns:
        fetches = f"{what}: fetches of any {column.partition(':')[0]}, most"
        goals.append(Goal(number=number, what=fetches, values=grid.of(Ours.name, column), limit=1, worst=True))
    return goals


Through = Callable[[type[Peer] | None], Mapping[str, float]]


def cases(bench: Bench, through: Through) -> dict[str, Callable[[], Mapping[str, float]]]:
    """``through`` without any server, and for every peer that asks an upstream for what it does not have."""
    return {DIRECT: partial(through, None), **{kind.name: partial(through, kind) for kind in mirrors(bench)}}


def mirrors(bench: Bench) -> list[type[Peer]]:
    """The peers for which it matters what is there already; a cold devpi is the same behind nginx."""
    return [kind for kind in bench.peers if kind.mirrors and kind is not DevpiBehindNginx]


def empty(
    bench: Bench, kind: type[Peer] | None, upstream: Upstream, act: Callable[[str], Done], *, origin: str = ""
) -> tuple[Done, Asked]:
    """``act`` on the pages of a new ``kind``, or of ``origin`` itself; and what the upstream was asked for by it."""
    if kind is None:
        upstream.forget()
        return act(f"{origin or upstream.origin}/simple/"), upstream.asked()
    with bench.up(kind, upstream=upstream, origin=origin) as peer:
        upstream.forget()
        return act(peer.simple_url), upstream.asked()
