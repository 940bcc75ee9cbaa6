"""Tables of what is not there yet: the first install, and many first installs at the same moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from benchmarks.bench import Asked, Bench
from benchmarks.client import Installed, install
from benchmarks.index import GROUPS
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import DevpiBehindNginx
from benchmarks.peers.ours import Ours

DIRECT = "direct"


def first_install(bench: Bench) -> list[Grid]:
    """One install through an empty server, on a fast link and on a slow one."""
    index = bench.index
    columns = ("fast, s", "fast: MB fetched", "slow, s", "slow: MB fetched", "failed")
    title = f"First install ({index.count(*GROUPS)} wheels, {index.megabytes(*GROUPS):.0f} MB)"
    grid = Grid(title=title, columns=columns, base=DIRECT, ratios=("fast, s", "slow, s"))

    for speed, origin in (("fast", bench.origin), ("slow", bench.slow.origin)):

        def through(kind: type[Peer] | None, speed: str = speed, origin: str = origin) -> Mapping[str, float]:
            done, asked = _cold(bench, kind, origin, list(GROUPS), 1)
            return {f"{speed}, s": done.seconds, f"{speed}: MB fetched": asked.megabytes, "failed": done.failed}

        in_turns(grid, _cases(bench, through), rounds=bench.scale.few)
    link = f"{1000 * bench.scale.rtt:.0f} ms round trip and {bench.scale.rate / 1e6:g} MB/s"
    grid.notes.append(f"Slow: {link}, a handshake costs a round trip. *{DIRECT}*: uv asks the upstream itself.")
    grid.goals = [
        Goal(number=7, what="cold, slow link / direct", values=grid.ratio(Ours.name, "slow, s"), limit=1.2),
        Goal(number=7, what="cold, fast link / direct", values=grid.ratio(Ours.name, "fast, s"), limit=2),
    ]
    return [grid]


def stampede(bench: Bench) -> list[Grid]:
    """Many installers that all want the same of an empty server at the same moment."""
    grids = []
    for number, clients in enumerate(bench.scale.clients):
        groups = ["small", "medium"] if number == 0 else ["small"]
        grids.append(_stampede(bench, clients, groups))
    return grids


def _stampede(bench: Bench, clients: int, groups: list[str]) -> Grid:
    count = bench.index.count(*groups)
    once = ("page: most, times", "wheel: most, times")
    columns = ("wall s", "failed clients", *once, "page fetches", "wheel fetches", "MB fetched")
    grid = Grid(
        title=f"Cold stampede of {clients}, {count} wheels each", columns=columns, base=DIRECT, ratios=("wall s",)
    )

    def through(kind: type[Peer] | None) -> Mapping[str, float]:
        done, asked = _cold(bench, kind, bench.origin, groups, clients)
        return {
            "wall s": done.seconds,
            "failed clients": done.failed,
            once[0]: max(asked.pages.values(), default=0),
            once[1]: max(asked.wheels.values(), default=0),
            "page fetches": asked.pages.total(),
            "wheel fetches": asked.wheels.total(),
            "MB fetched": asked.megabytes,
        }

    in_turns(grid, _cases(bench, through), rounds=bench.scale.few)
    grid.notes.append(
        f"Needed: {count} pages and {count} wheels, {bench.index.megabytes(*groups):.0f} MB. Fetches: at the upstream."
    )
    grid.goals = [
        Goal(
            number=5,
            what=f"{clients} at once, cold: failed",
            values=grid.of(Ours.name, "failed clients"),
            limit=0,
            worst=True,
        )
    ]
    for what, column in zip(("page", "wheel"), once, strict=True):
        values = grid.of(Ours.name, column)
        grid.goals.append(
            Goal(
                number=5,
                what=f"{clients} at once, cold: fetches of any {what}, most",
                values=values,
                limit=1,
                worst=True,
            )
        )
    return grid


def _cases(bench: Bench, through: Callable[[type[Peer] | None], Mapping[str, float]]):  # type: ignore[no-untyped-def]
    kinds = [kind for kind in bench.peers if kind.mirrors and kind is not DevpiBehindNginx]
    return {DIRECT: lambda: through(None), **{kind.name: lambda kind=kind: through(kind) for kind in kinds}}


def _cold(
    bench: Bench, kind: type[Peer] | None, origin: str, groups: list[str], clients: int
) -> tuple[Installed, Asked]:
    """Install through a new ``kind``, or without any server; and what the upstream was asked for meanwhile."""
    wanted = bench.index.wanted(*groups)
    if kind is None:
        bench.forget()
        return install(bench, f"{origin}/simple/", wanted, clients=clients), bench.asked()
    with bench.up(kind, origin=origin) as peer:
        bench.forget()
        return install(bench, peer.simple_url, wanted, clients=clients), bench.asked()
