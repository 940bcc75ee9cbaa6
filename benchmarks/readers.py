"""A table of what a password costs: a warm page and file that only users read, against the same for everybody."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import httpx

from benchmarks.bench import Bench
from benchmarks.client import file_url
from benchmarks.load import JSON, rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import LOCAL
from benchmarks.peers.ours import Ours

NUMBER = 22
CONNECTIONS = (1, 8)
SLICES = 5
"""Rounds of load."""


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
    """Both run side by side, with the same files, and are loaded in turns: a busy machine slows both alike."""
    columns = tuple(f"{what} c{connections}" for what in ("page", "file") for connections in CONNECTIONS)
    base, closed = Ours.name, OursForReaders.name
    grid = Grid(title="What a password costs (requests/s)", columns=(*columns, "not 2xx"), base=base, ratios=columns)
    index = bench.promising.index
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=120, **LOCAL))
        peers = [stack.enter_context(bench.up(kind, upstream=bench.promising)) for kind in (Ours, OursForReaders)]

        def loaded(peer: Ours) -> Mapping[str, float]:
            sent = peer.headers if isinstance(peer, OursForReaders) else {}
            page = f"{peer.simple_url}{index.usual}/"
            client.get(page, headers={**JSON, **sent}).raise_for_status()
            client.get(f"{peer.simple_url}{index.longest}/", headers={**JSON, **sent}).raise_for_status()
            there = file_url(peers[0].simple_url, index.longest, index.wheels[index.longest].filename)
            file = there.replace(peers[0].url, peer.url)
            row = {"not 2xx": 0.0}
            for url, what, headers in ((page, "page", {**JSON, **sent}), (file, "file", sent)):
                for connections in CONNECTIONS:
                    for _ in range(2):
                        client.get(url, headers=headers).raise_for_status()
                    done = rate(url, connections=connections, seconds=bench.scale.seconds, headers=headers)
                    row[f"{what} c{connections}"] = done.requests
                    row["not 2xx"] += done.failed
            return row

        in_turns(grid, {peer.name: partial(loaded, peer) for peer in peers}, rounds=SLICES)
    grid.notes.append("With readers, each request has a password. It is judged by devpi every ten seconds.")
    for column in columns:
        what = f"warm {column}: requests/s with a password / without"
        values = grid.ratio(closed, column)
        grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=0.9, at_least=True))
    return [grid]
