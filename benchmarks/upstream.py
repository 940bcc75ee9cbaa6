"""An upstream on this machine: an nginx that counts what it sends, and two links to it."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import nginx
from benchmarks.deployment import free_port
from benchmarks.index import Index
from benchmarks.relay import Relay


@dataclass(kw_only=True)
class Asked:
    """What an upstream was asked for, from its log: how often for what, and the bytes that it sent."""

    pages: Counter[str] = field(default_factory=Counter)
    wheels: Counter[str] = field(default_factory=Counter)
    metadata: Counter[str] = field(default_factory=Counter)
    """Core metadata files, by the name of the wheel."""
    sent: int = 0
    """All bytes, headers included."""
    of_wheels: int = 0
    """Bytes of the bodies of wheels."""

    @property
    def megabytes(self) -> float:
        return self.sent / 1e6


@dataclass(kw_only=True)
class Upstream:
    """A static index, and its log; ``fast`` and ``slow`` lead to it."""

    kind: str
    """What a title says of it."""
    index: Index
    server: nginx.Nginx
    log: Path
    fast: Relay
    slow: Relay

    @property
    def origin(self) -> str:
        """The upstream itself, with nothing in between."""
        return f"http://127.0.0.1:{self.server.port}"

    def forget(self) -> None:
        """Count what is asked from now on."""
        self._settled()
        self.log.write_bytes(b"")  # nginx appends, so its next line begins the file

    def asked(self) -> Asked:
        """What was asked since :meth:`forget`; a fetch is a GET, whatever came of it."""
        asked = Asked()
        for line in self._settled().splitlines():
            method, _status, path, sent, body = line.split()
            asked.sent += int(sent)
            name = path.rpartition("/")[2]
            if name.endswith(".whl"):
                asked.of_wheels += int(body)
            if method != "GET":
                continue
            if page := re.fullmatch(r"/simple/([^/]+)/(index\.\w+)?", path):
                asked.pages[page[1]] += 1
            elif name.endswith(".whl"):
                asked.wheels[name] += 1
            elif name.endswith(".whl.metadata"):
                asked.metadata[name.removesuffix(".metadata")] += 1
        return asked

    def _settled(self) -> str:
        """The log, once no line has come for a moment: nginx writes when an answer has gone."""
        before = -1
        while (size := self.log.stat().st_size) != before:
            before = size
            time.sleep(0.1)
        return self.log.read_text()


@contextmanager
def serving(index: Index, *, kind: str, rtt: float, rate: float) -> Iterator[Upstream]:
    """``index`` on an nginx. ``rtt`` in seconds and ``rate`` in bytes a second are those of the slow link."""
    work, port = index.root.parent, free_port()
    log = work / "upstream.log"
    log.touch()
    server = nginx.Nginx(work / "upstream", nginx.static(index.root, port=port, log=str(log)), port)
    with ExitStack() as stack:
        server.start()
        stack.callback(server.stop)
        relays = {"fast": Relay(free_port(), port), "slow": Relay(free_port(), port, rtt, rate)}
        for relay in relays.values():
            relay.start()
            stack.callback(relay.stop)
        yield Upstream(kind=kind, index=index, server=server, log=log, **relays)
