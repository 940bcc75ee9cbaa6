"""What clients see of a changed key, a restart, and a replaced container: requests that fail, and the longest wait."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.bench import Bench
from benchmarks.deployment import PATIENCE, Deployment, deployment
from benchmarks.load import JSON
from benchmarks.measure import Goal, Grid

FAILED, GAP = "requests that failed", "from the first to the last of them, s"
PAGE, DEVPI = "longest wait for a stored page, s", "longest wait for devpi, s"
PAUSE = 0.005
"""Seconds between two requests of one client."""
KEY, RESTART, REPLACED = "changed key", "restart", "replaced"
CHANGES: Mapping[str, tuple[str, ...]] = {
    KEY: ("--set", "server.threads={number}"),
    RESTART: (),
    REPLACED: ("--set", "server.log_max_files={number}"),
}


def changes(bench: Bench) -> list[Grid]:
    """Two clients that never stop, one for a stored page and one for devpi, during each kind of change."""
    grid = Grid(title="What clients see of a change", columns=(FAILED, GAP, PAGE, DEVPI))
    for engine in bench.engines:
        with (
            grid.measuring(engine),
            deployment(engine, upstream=f"{bench.origin}/simple/", command=bench.tools.deployer) as made,
        ):
            page = f"/root/dev/+simple/{bench.index.usual}/"
            made_page(made, page)
            for number in range(bench.scale.few):
                for change in CHANGES:
                    with asking(made, page) as seen:
                        _change(made, change, number)
                    grid.add(f"{engine}: {change}", seen.row())
        for change in (KEY, RESTART):
            failed = grid.of(f"{engine}: {change}", FAILED)
            grid.goals.append(
                Goal(number=21, what=f"{change} ({engine}): {FAILED}", values=failed, limit=0, worst=True)
            )
    grid.notes.append(
        f"Each client asks again after {1000 * PAUSE:.0f} ms. *{REPLACED}*: another container or process."
    )
    return [grid]


def made_page(made: Deployment, page: str) -> None:
    """Have the page stored."""
    for _ in range(2):
        _ask(made.port, page)


def _change(made: Deployment, change: str, number: int) -> None:
    if change == RESTART:
        made.restart()
    else:
        made.run([*made.words("up"), *(word.format(number=10 + number) for word in CHANGES[change])])


@dataclass
class Seen:
    """When requests failed, and how long the others took."""

    failed: list[float] = field(default_factory=list)
    waits: dict[str, float] = field(default_factory=dict)

    def row(self) -> Mapping[str, float]:
        gap = max(self.failed) - min(self.failed) if self.failed else 0.0
        return {FAILED: len(self.failed), GAP: gap, **self.waits}


@contextmanager
def asking(made: Deployment, page: str) -> Iterator[Seen]:
    """The two clients, for as long as the block runs."""
    seen, over = Seen(), threading.Event()

    def client(column: str, path: str) -> None:
        longest = 0.0
        while not over.is_set():
            began = time.monotonic()
            try:
                _ask(made.port, path)
                longest = max(longest, time.monotonic() - began)
            except (OSError, http.client.HTTPException):
                seen.failed.append(began)
            time.sleep(PAUSE)
        seen.waits[column] = longest

    clients = [threading.Thread(target=client, args=one) for one in ((PAGE, page), (DEVPI, "/+api"))]
    for one in clients:
        one.start()
    try:
        yield seen
    finally:
        over.set()
        for one in clients:
            one.join()


def _ask(port: int, path: str) -> None:
    """Raises OSError, HTTPException, also for any status but 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers=JSON if "/+simple/" in path else {"Accept": "application/json"})
        response = connection.getresponse()
        response.read()
        if response.status != 200:
            raise http.client.HTTPException(response.status)
    finally:
        connection.close()
