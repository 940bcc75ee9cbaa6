"""What every table is measured on: the files, the upstreams that count, the links to them, and the peers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks.index import Index, Size, make, without_metadata
from benchmarks.measure import Grid
from benchmarks.peers import ALL
from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import PlainDevpi
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxStatic
from benchmarks.peers.rust import Pypiron
from benchmarks.relay import Relay
from benchmarks.tools import Tools
from benchmarks.upstream import Upstream, serving

P = TypeVar("P", bound=Peer)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured. ``rounds`` of what is quick, ``few`` of what takes long; ``seconds`` of load a figure."""

    rounds: int
    few: int
    seconds: float
    size: Size
    """What is installed."""
    resolved: Size
    """What is resolved: its wheels are all of one size."""
    project: Size
    """What a project behind a VPN installs."""
    prewarmed: Size
    """What is fetched ahead of time."""
    cold_files: int
    """How many cold files are fetched one after the other to count what each costs."""
    long_page: int
    """Links of the page whose CPU time and memory are measured."""
    huge: float
    """Megabytes of the wheel whose first byte is waited for."""
    peers: Sequence[type[Peer]]
    clients: Sequence[int]
    """How many at once, in the stampede; the first number in the warm table as well."""
    stuck: int
    uploads: int
    bundled: int
    """Megabytes of a bundle."""
    rtt: float = 0.05
    rate: float = 2e6
    """The slow link: seconds of a round trip, bytes a second."""
    slow_default_start: bool = True
    """Whether devpi is also started with its own key derivation, ten seconds each time."""


FULL = Scale(
    rounds=3,
    few=2,
    seconds=1,
    size=Size(small=13, medium=13, large=36, megabytes=41, links=4000),
    resolved=Size(small=13, medium=13, large=74, megabytes=120, links=4000, even=True),
    project=Size(small=13, medium=13, large=14, megabytes=40, links=4000),
    prewarmed=Size(small=20, medium=40, large=240, megabytes=40, links=1000),
    cold_files=10,
    long_page=20_000,
    huge=100,
    peers=ALL,
    clients=(8, 32),
    stuck=60,
    uploads=20,
    bundled=1000,
)
QUICK = Scale(
    rounds=2,
    few=1,
    seconds=1,
    size=Size(small=7, medium=6, large=7, megabytes=8, links=1000),
    resolved=Size(small=7, medium=6, large=17, megabytes=36, links=1000, even=True),
    project=Size(small=13, medium=13, large=14, megabytes=40, links=1000),
    prewarmed=Size(small=20, medium=40, large=240, megabytes=40, links=1000),
    cold_files=5,
    long_page=20_000,
    huge=100,
    peers=(NginxStatic, Pypiron, PlainDevpi, Ours),
    clients=(8,),
    stuck=60,
    uploads=5,
    bundled=200,
    slow_default_start=False,
)


@dataclass(kw_only=True)
class Bench:
    """The surroundings, up; peers come and go by :meth:`up`."""

    scale: Scale
    tools: Tools
    work: Path
    upstream: Upstream
    """With what is installed."""
    promising: Upstream
    """With what is resolved, and core metadata for all of it."""
    bare: Upstream
    """The same without core metadata."""
    engines: Sequence[str]

    @property
    def peers(self) -> Sequence[type[Peer]]:
        return self.scale.peers

    @property
    def index(self) -> Index:
        return self.upstream.index

    @property
    def origin(self) -> str:
        """The upstream itself, with nothing in between."""
        return self.upstream.origin

    @property
    def fast(self) -> Relay:
        return self.upstream.fast

    @property
    def slow(self) -> Relay:
        return self.upstream.slow

    def all_up(
        self, kinds: Sequence[type[Peer]], grid: Grid, stack: ExitStack, *, upstream: Upstream | None = None
    ) -> dict[str, Peer]:
        """All of them at once, until ``stack`` ends; who does not come up is left out of ``grid``."""
        made: dict[str, Peer] = {}
        for kind in kinds:
            with grid.measuring(kind.name):
                made[kind.name] = stack.enter_context(self.up(kind, upstream=upstream))
        return made

    @contextmanager
    def up(self, kind: type[P], *, upstream: Upstream | None = None, origin: str = "") -> Iterator[P]:
        """A peer without any data, started; nothing of it is left at the end."""
        peer = self.peer(kind, upstream=upstream, origin=origin)
        try:
            peer.start()
            yield peer
        finally:
            peer.remove()

    def peer(self, kind: type[P], *, upstream: Upstream | None = None, origin: str = "") -> P:
        """A peer that is not up yet. ``origin``: the link to ``upstream``, when not the direct one."""
        behind = upstream or self.upstream
        work = Path(tempfile.mkdtemp(prefix="peer-", dir=self.work))
        return kind(tools=self.tools, index=behind.index, work=work, origin=origin or behind.origin)


@contextmanager
def bench(scale: Scale, tools: Tools, *, engines: Sequence[str] = ("process",)) -> Iterator[Bench]:
    """Make the files and start the upstreams; ``engines``: those that ours is measured on."""
    work = Path(tempfile.mkdtemp(prefix="deployer-benchmark-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        resolved = make(work / "resolved/index", scale.resolved)
        upstream, promising, bare = (
            stack.enter_context(serving(index, kind=kind, rtt=scale.rtt, rate=scale.rate))
            for index, kind in (
                (make(work / "installed/index", scale.size), "upstream"),
                (resolved, "upstream with core metadata"),
                (without_metadata(resolved, work / "bare/index"), "upstream without core metadata"),
            )
        )
        yield Bench(
            scale=scale, tools=tools, work=work, upstream=upstream, promising=promising, bare=bare, engines=engines
        )
