"""What an upstream that is gone, or that never answers, does to those who want what is there already."""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.client import install, install_well, page
from benchmarks.load import JSON
from benchmarks.measure import Goal, Grid
from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import PlainDevpi
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxCache

KINDS = (NginxCache, PlainDevpi, Ours)
NORMAL = "normal, s"
CASES = ("refused, s", "refused, restarted, s", "hanging, s", "hanging, restarted, s")
PATIENCE = 120.0


def faults(bench: Bench) -> list[Grid]:
    """A warm install while the upstream is broken, and the delay of a warm page behind requests that are stuck."""
    count = bench.index.count("small")
    title = f"Upstream faults (warm install of {count} wheels)"
    install_grid = Grid(title=title, columns=(NORMAL, *CASES, "failed"))
    delay = f"{bench.scale.stuck} stuck: worst delay, ms"
    stuck_grid = Grid(title="Requests that are stuck", columns=("warm page, ms", delay))
    for _ in range(bench.scale.few):
        for kind in bench.peers:
            if kind in KINDS and not {kind.name} & (install_grid.lost | stuck_grid.lost):
                with (
                    install_grid.measuring(kind.name),
                    bench.up(kind, origin=bench.fast.origin) as peer,
                    _mended(bench),
                ):
                    _round(bench, peer, install_grid)
                    with stuck_grid.measuring(kind.name):
                        stuck_grid.add(peer.name, _stuck(bench, peer, delay))
    install_grid.notes.append("Refused: nothing listens. Hanging: connections are taken, and nothing comes back.")
    install_grid.goals = [
        Goal(
            number=6,
            what=f"{case.removesuffix(', s')}: warm install / normal",
            values=[
                broken / normal
                for broken, normal in zip(
                    install_grid.of(Ours.name, case), install_grid.of(Ours.name, NORMAL), strict=True
                )
            ],
            limit=1.2,
        )
        for case in CASES
    ]
    failed = install_grid.of(Ours.name, "failed")
    install_grid.goals.append(Goal(number=6, what="broken upstream: failed", values=failed, limit=0, worst=True))
    stuck_grid.notes.append("The stuck ones ask for projects that are not there yet, while the upstream hangs.")
    stuck_grid.goals = [
        Goal(
            number=6,
            what=f"a warm page behind {bench.scale.stuck} stuck requests",
            values=stuck_grid.of(Ours.name, delay),
            limit=100,
            worst=True,
            unit=" ms",
        )
    ]
    return [install_grid, stuck_grid]


@contextmanager
def _mended(bench: Bench) -> Iterator[None]:
    try:
        yield
    finally:
        bench.fast.become("pass")


def _round(bench: Bench, peer: Peer, grid: Grid) -> None:
    wanted, url = bench.index.wanted("small"), peer.simple_url
    install_well(bench, url, wanted)
    # The median, and not the least: what it is compared with was measured once.
    row = {NORMAL: statistics.median(install_well(bench, url, wanted) for _ in range(3)), "failed": 0.0}
    for word, cases in (("refuse", CASES[:2]), ("hang", CASES[2:])):
        bench.fast.become(word)
        for case, again in zip(cases, (False, True), strict=True):
            if again:
                peer.restart()
            done = install(bench, peer.simple_url, wanted)
            row[case] = done.seconds
            row["failed"] += done.failed
        bench.fast.become("pass")
        install(bench, peer.simple_url, wanted)  # all as before for the next fault
    grid.add(peer.name, row)


def _stuck(bench: Bench, peer: Peer, delay: str) -> dict[str, float]:
    url = f"{peer.simple_url}{bench.index.usual}/"
    page(peer.simple_url, bench.index.usual)
    page(peer.simple_url, bench.index.usual)
    normal = sorted(_seconds(url) for _ in range(20))[10]
    bench.fast.become("hang")
    parts = urlsplit(peer.simple_url)
    asking = []
    for number in range(bench.scale.stuck):
        one = socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)
        one.sendall(f"GET {parts.path}bench-new-{number:03d}/ HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode())
        asking.append(one)
    worst = 0.0
    until = time.monotonic() + 3
    while time.monotonic() < until:
        worst = max(worst, _seconds(url))
        threading.Event().wait(0.05)
    for one in asking:
        with contextlib.suppress(OSError):
            one.close()
    return {"warm page, ms": 1000 * normal, delay: 1000 * worst}


def _seconds(url: str) -> float:
    """Until the whole page has come, on a connection of its own; PATIENCE when none comes."""
    parts = urlsplit(url)
    started = time.perf_counter()
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PATIENCE)
    try:
        connection.request("GET", parts.path, headers=JSON)
        answer = connection.getresponse()
        answer.read()
        return time.perf_counter() - started if answer.status == 200 else PATIENCE
    except (OSError, http.client.HTTPException):
        return PATIENCE
    finally:
        connection.close()
