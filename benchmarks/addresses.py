"""A table of what is there already under load, asked for in the very words of uv and of pip."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import httpx

from benchmarks.bench import Bench
from benchmarks.client import file_url
from benchmarks.load import rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import LOCAL, Peer
from benchmarks.peers.ours import Ours
from benchmarks.peers.rust import Pypiron
from benchmarks.warm import all_warm

NUMBER = 11
CONNECTIONS = (8, 32)


@dataclass(frozen=True, kw_only=True)
class Client:
    """How an installer asks for pages and files. ``plus``: what it makes of a + in the address of a file."""

    name: str
    plus: str
    page: Mapping[str, str]
    file: Mapping[str, str]

    def address(self, url: str) -> str:
        """The address ``url`` of a file, as it stands on a page, in the client's own spelling."""
        parts = urlsplit(url)
        return parts._replace(path=parts.path.replace("+", self.plus)).geturl()

    def columns(self, what: str, unit: str = "") -> dict[str, int]:
        """Names of columns, and how many connections each means."""
        return {f"{self.name}: {what} c{count}{unit}": count for count in CONNECTIONS}

    @property
    def pages(self) -> dict[str, int]:
        return self.columns("page")

    @property
    def files(self) -> dict[str, int]:
        return self.columns("file", ", MB/s")


_JSON = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html"
# What uv 0.13.9 and pip 26.3 send. pip quotes the + of addresses that it takes from a page.
CLIENTS = (
    Client(
        name="uv",
        plus="+",
        page={
            "User-Agent": "uv/0.13.9",
            "Accept": f"{_JSON};q=0.2, text/html;q=0.01",
            "Accept-Encoding": "gzip, deflate, zstd",
        },
        file={"User-Agent": "uv/0.13.9", "Accept": "*/*", "Accept-Encoding": "identity"},
    ),
    Client(
        name="pip",
        plus="%2B",
        page={
            "User-Agent": "pip/26.3",
            "Accept": f"{_JSON}; q=0.1, text/html; q=0.01",
            "Accept-Encoding": "gzip, deflate",
        },
        file={"User-Agent": "pip/26.3", "Accept": "*/*", "Accept-Encoding": "identity"},
    ),
)


def addresses(bench: Bench) -> list[Grid]:
    """Requests a second for a page, megabytes a second for a wheel, by uv's headers and addresses and by pip's."""
    rates = [column for client in CLIENTS for column in (*client.pages, *client.files)]
    title = "Warm pages and files by the addresses of uv and pip (requests/s)"
    grid = Grid(title=title, columns=(*rates, "not 2xx"), base=Pypiron.name, ratios=rates)
    with ExitStack() as stack:
        peers = all_warm(bench, grid, stack)
        in_turns(grid, {peer.name: partial(_rates, bench, peer) for peer in peers}, rounds=bench.scale.rounds)
    size = len(bench.index.wheels[bench.index.longest].content) / 1e6
    grid.notes.append(f"The file has {size:.1f} MB. pip asks for `%2Bf` where the page says `+f`.")
    for column in rates:
        what = f"warm {column.removesuffix(', MB/s')} / {Pypiron.name}"
        values = grid.ratio(Ours.name, column)
        grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=2, at_least=True))
    return [grid]


def _rates(bench: Bench, peer: Peer) -> Mapping[str, float]:
    index, seconds = bench.index, bench.scale.seconds
    page = f"{peer.simple_url}{index.usual}/"
    wheel = index.wheels[index.longest]
    file = file_url(peer.simple_url, index.longest, wheel.filename)
    row: dict[str, float] = {"not 2xx": 0}
    for client in CLIENTS:
        url = client.address(file)
        whole = httpx.get(url, headers=dict(client.file), timeout=60, **LOCAL)
        if whole.content != wheel.content:
            raise SystemExit(f"{url} is not {wheel.filename}: {whole.status_code}, {len(whole.content)} bytes")
        for column, count in client.pages.items():
            done = rate(page, connections=count, seconds=seconds, headers=client.page)
            row[column] = done.requests
            row["not 2xx"] += done.failed
        for column, count in client.files.items():
            done = rate(url, connections=count, seconds=seconds, headers=client.file)
            row[column] = done.megabytes
            row["not 2xx"] += done.failed
    return row
