"""What every table is measured on: the files, the upstream that counts, the links to it, and the peers."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks import nginx
from benchmarks.deployment import free_port
from benchmarks.index import Index, Size, make
from benchmarks.measure import Grid
from benchmarks.peers import ALL
from benchmarks.peers.base import Peer
from benchmarks.peers.devpi import PlainDevpi
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxStatic
from benchmarks.relay import Relay
from benchmarks.tools import Tools

P = TypeVar("P", bound=Peer)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured. ``rounds`` of what is quick, ``few`` of what takes long; ``seconds`` of load a figure."""

    rounds: int
    few: int
    seconds: float
    size: Size
    peers: Sequence[type[Peer]]
    clients: Sequence[int]
    """How many at once, in the stampede; the first number in the warm table as well."""
    stuck: int
    uploads: int
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
    peers=ALL,
    clients=(8, 32),
    stuck=60,
    uploads=20,
)
QUICK = Scale(
    rounds=2,
    few=1,
    seconds=1,
    size=Size(small=7, medium=6, large=7, megabytes=8, links=1000),
    peers=(NginxStatic, PlainDevpi, Ours),
    clients=(8,),
    stuck=60,
    uploads=5,
    slow_default_start=False,
)


@dataclass(kw_only=True)
class Asked:
    """What the upstream was asked for, from its log."""

    pages: Counter[str] = field(default_factory=Counter)
    wheels: Counter[str] = field(default_factory=Counter)
    megabytes: float = 0.0


@dataclass(kw_only=True)
class Bench:
    """The surroundings, up; peers come and go by :meth:`up`."""

    scale: Scale
    tools: Tools
    work: Path
    index: Index
    upstream: nginx.Nginx
    fast: Relay
    slow: Relay
    log: Path
    engines: Sequence[str]

    @property
    def peers(self) -> Sequence[type[Peer]]:
        return self.scale.peers

    @property
    def origin(self) -> str:
        """The upstream itself, with nothing in between."""
        return f"http://127.0.0.1:{self.upstream.port}"

    def all_up(self, kinds: Sequence[type[Peer]], grid: Grid, stack: ExitStack) -> dict[str, Peer]:
        """All of them at once, until ``stack`` ends; who does not come up is left out of ``grid``."""
        made: dict[str, Peer] = {}
        for kind in kinds:
            with grid.measuring(kind.name):
                made[kind.name] = stack.enter_context(self.up(kind))
        return made

    @contextmanager
    def up(self, kind: type[P], *, origin: str = "") -> Iterator[P]:
        """A peer without any data, started; nothing of it is left at the end."""
        peer = self.peer(kind, origin=origin)
        try:
            peer.start()
            yield peer
        finally:
            peer.remove()

    def peer(self, kind: type[P], *, origin: str = "") -> P:
        work = Path(tempfile.mkdtemp(prefix="peer-", dir=self.work))
        return kind(tools=self.tools, index=self.index, work=work, origin=origin or self.origin)

    def forget(self) -> None:
        """Count what the upstream is asked from now on."""
        self._settled()
        self.log.write_bytes(b"")  # nginx appends, so its next line begins the file

    def asked(self) -> Asked:
        """What was asked since :meth:`forget`; a fetch is a GET, whatever came of it."""
        asked = Asked()
        for line in self._settled().splitlines():
            method, _status, path, size = line.split()
            asked.megabytes += int(size) / 1e6
            if method != "GET":
                continue
            if page := re.fullmatch(r"/simple/([^/]+)/(index\.\w+)?", path):
                asked.pages[page[1]] += 1
            elif path.endswith(".whl"):
                asked.wheels[path.rpartition("/")[2]] += 1
        return asked

    def _settled(self) -> str:
        """The log, once no line has come for a moment: nginx writes when an answer has gone."""
        before = -1
        while (size := self.log.stat().st_size) != before:
            before = size
            time.sleep(0.1)
        return self.log.read_text()


@contextmanager
def bench(scale: Scale, tools: Tools, *, engines: Sequence[str] = ("process",)) -> Iterator[Bench]:
    """Make the files and start the upstream; ``engines``: those that ours is measured on."""
    work = Path(tempfile.mkdtemp(prefix="deployer-benchmark-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        index = make(work / "index", scale.size)
        log, port = work / "upstream.log", free_port()
        log.touch()
        upstream = nginx.Nginx(work / "upstream", nginx.static(index.root, port=port, log=str(log)), port)
        upstream.start()
        stack.callback(upstream.stop)
        relays = {"fast": Relay(free_port(), port), "slow": Relay(free_port(), port, scale.rtt, scale.rate)}
        for relay in relays.values():
            relay.start()
            stack.callback(relay.stop)
        yield Bench(
            scale=scale, tools=tools, work=work, index=index, upstream=upstream, log=log, engines=engines, **relays
        )
