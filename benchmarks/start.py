"""How soon a server is ready, on data that is there, and what memory it then has; ours beside the bare one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.client import install_well
from benchmarks.deployment import until_it_answers
from benchmarks.index import GROUPS
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import PlainDevpi
from benchmarks.peers.ours import DockerRun, Ours, OursOnDocker
from benchmarks.peers.plain_nginx import NginxStatic

READY, ENDED, PEAK, BUSY = "ready, s", "end of `up`, s", "peak after the start, MiB", "peak after an install, MiB"
BARE = "devpi"
DEFAULT = "devpi, its own key derivation"


def start(bench: Bench) -> list[Grid]:
    """Start, ask until it answers, stop; again and again on the same data."""
    grid = Grid(title="Start on existing data", columns=(READY, ENDED, PEAK, BUSY), base=BARE, ratios=(READY, ENDED))
    kinds = [kind for kind in bench.peers if kind is not NginxStatic]
    ours = {"process": Ours, "docker": OursOnDocker}
    kinds += [ours[engine] for engine in bench.engines if ours[engine] not in kinds]
    if OursOnDocker in kinds:
        kinds.append(DockerRun)
    with ExitStack() as stack:
        peers = bench.all_up(kinds, grid, stack)
        if bench.scale.slow_default_start and PlainDevpi in kinds:
            slow = bench.peer(PlainDevpi)
            assert isinstance(slow, PlainDevpi)
            slow.cost = ()
            stack.callback(slow.remove)
            with grid.measuring(DEFAULT):
                slow.start()
                peers[DEFAULT] = slow
        for peer in peers.values():
            peer.stop()
        cases = {name: _case(bench, peer) for name, peer in peers.items()}
        in_turns(grid, cases, rounds=bench.scale.rounds)
    grid.notes.append(
        f"*{READY}*: until the first answer, asked without a pause. *{ENDED}*: until the command returned, which for "
        f"the bare server is the first answer. Memory: the sum of all processes, each at its worst moment; *{BUSY}*: "
        f"after one install of {bench.index.count(*GROUPS)} wheels."
    )
    for kind in (Ours, OursOnDocker):
        if kind in kinds:
            ends = [end / bare for end, bare in zip(grid.of(kind.name, ENDED), grid.of(BARE, READY), strict=False)]
            what = f"`up` ({kind.name}) / the bare server, ready"
            grid.goals.append(Goal(number=1, what=what, values=ends, limit=1.5))
            for column, limit in ((PEAK, 128), (BUSY, 256)):
                memory = grid.of(kind.name, column)
                what = f"memory ({kind.name}), {column.removeprefix('peak ').removesuffix(', MiB')}"
                grid.goals.append(Goal(number=1, what=what, values=memory, limit=limit, worst=True, unit=" MiB"))
    if DockerRun in kinds:
        for column in (READY, ENDED):
            pairs = zip(grid.of(OursOnDocker.name, column), grid.of(DockerRun.name, READY), strict=False)
            what = f"`up` on Docker, {column.removesuffix(', s')} / `{DockerRun.name}`, ready"
            grid.goals.append(Goal(number=1, what=what, values=[ours / run for ours, run in pairs], limit=1.2))
    return [grid]


def _case(bench: Bench, peer: Peer) -> Callable[[], Mapping[str, float]]:
    is_devpi = isinstance(peer, PlainDevpi | Ours)
    where = "/+api" if is_devpi else f"{urlsplit(peer.simple_url).path}{peer.index.usual}/"

    def case() -> Mapping[str, float]:
        first: list[float] = []
        asking = threading.Thread(target=lambda: first.append(until_it_answers(peer.port, where)))
        started = time.perf_counter()
        asking.start()
        peer.start()
        ended = time.perf_counter()
        asking.join()
        if not first:
            raise SystemExit(f"{peer.name} does not answer {where}")
        peak = peer.peak()
        install_well(bench, peer.simple_url, bench.index.wanted(*GROUPS))
        row = {READY: first[0] - started, PEAK: peak, BUSY: peer.peak()}
        peer.stop()
        return row | ({ENDED: ended - started} if isinstance(peer, Ours) else {ENDED: row[READY]})

    return case
