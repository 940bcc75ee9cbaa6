"""A table of what a password costs: a warm page and file that only users read, against the same for everybody."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx

from benchmarks import processes
from benchmarks.bench import Bench
from benchmarks.client import file_url
from benchmarks.load import JSON, rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import LOCAL
from benchmarks.peers.ours import Ours

NUMBER = 22
CONNECTIONS = (1, 8)
ROUNDS = 9
"""Rounds of a second of load for each row: a machine that others use needs many."""
SENT = "deployer, password sent"
"""An index for everybody, asked by a client that sends a password: what the longer request costs."""


@dataclass(kw_only=True)
class OursForReaders(Ours):
    """Ours with a mirror that only users read, and so the index above it."""

    name = "deployer with readers"

    def start(self) -> None:
        super().start()
        assert self.made is not None
        self.made.run(["index", "modify", "root/pypi", "read=:AUTHENTICATED:", "--engine", self.engine])
        self.password = self.made.password

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Basic {b64encode(f'root:{self.password}'.encode()).decode()}"}


def readers(bench: Bench) -> list[Grid]:
    """Both run side by side, with the same files. One figure is measured of all rows before the next one."""
    names = {f"{what} c{count}": (what, count) for what in ("page", "file") for count in CONNECTIONS}
    costs = {name: f"{name}: CPU of nginx, µs" for name in names if name.startswith("page")}
    grid = Grid(title="What a password costs (requests/s)", columns=(*names, *costs.values(), "not 2xx"))
    grid.base, grid.ratios = Ours.name, (*names, *costs.values())
    index = bench.promising.index
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=120, **LOCAL))
        open_, closed = (
            stack.enter_context(bench.up(kind, upstream=bench.promising)) for kind in (Ours, OursForReaders)
        )
        assert isinstance(closed, OursForReaders)
        rows = {Ours.name: (open_, {}), SENT: (open_, closed.headers), OursForReaders.name: (closed, closed.headers)}
        for peer, sent in rows.values():
            for project in (index.usual, index.longest):
                client.get(f"{peer.simple_url}{project}/", headers={**JSON, **sent}).raise_for_status()
        there = file_url(open_.simple_url, index.longest, index.wheels[index.longest].filename)

        def loaded(name: str, peer: Ours, sent: Mapping[str, str]) -> Mapping[str, float]:
            what, connections = names[name]
            page = what == "page"
            url = f"{peer.simple_url}{index.usual}/" if page else there.replace(open_.url, peer.url)
            headers = {**JSON, **sent} if page else sent
            for _ in range(2):
                client.get(url, headers=headers).raise_for_status()
            workers = processes.named(peer.pids(), "nginx: worker")
            before = processes.run_time(workers)
            done = rate(url, connections=connections, seconds=bench.scale.seconds, headers=headers)
            used = 1e6 * (processes.run_time(workers) - before) / max(done.done, 1)
            return {name: done.requests, "not 2xx": done.failed} | ({costs[name]: used} if page else {})

        for name in names:
            in_turns(grid, {row: partial(loaded, name, *whose) for row, whose in rows.items()}, rounds=ROUNDS)
    grid.notes.append(
        f"*{SENT}*: of an index for everybody. With readers, each request has a password, which devpi judges every ten "
        "seconds; nginx reads a file in memory and compares a hash. CPU: of nginx alone, without the client's part."
    )
    for column in names:
        what = f"warm {column}: requests/s with a password / without"
        values = grid.ratio(OursForReaders.name, column)
        grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=0.9, at_least=True))
    return [grid]
