"""A table of HTTPS: warm pages and files on connections that are kept, by ours and by nginx from the disk."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from benchmarks import nginx
from benchmarks.bench import Bench
from benchmarks.client import file_url, page
from benchmarks.deployment import free_port
from benchmarks.load import JSON, rate
from benchmarks.measure import Goal, Grid, in_turns
from benchmarks.peers.base import Peer
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxStatic
from deployer.certificates.authority import Authority

NUMBER = 22
PAGES = {"page c1": 1, "page c8": 8}
FILES = {"file c1, MB/s": 1, "file c8, MB/s": 8}
_HOST = "127.0.0.1"
_LISTEN = f"listen {_HOST}:PORT backlog=1024;"
_SSL = f"""listen {_HOST}:PORT backlog=1024 ssl;
        ssl_certificate PEM;
        ssl_certificate_key PEM;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:4m;"""


@dataclass(kw_only=True)
class NginxStaticTls(NginxStatic):
    """The same files by HTTPS, with a certificate of the same kind as ours."""

    name = "nginx static, TLS"

    @property
    def simple_url(self) -> str:
        return f"https://{_HOST}:{self.port}/simple/"

    def _http(self) -> str:
        now, valid = datetime.now(UTC), timedelta(days=1)
        chain, key = Authority.made([_HOST], now, title="benchmark", valid=valid).signed([_HOST], now, valid=valid)
        self.work.mkdir(parents=True, exist_ok=True)
        pem = self.work / "tls.pem"
        pem.write_text(chain + key)
        listen, ssl = (text.replace("PORT", str(self.port)) for text in (_LISTEN, _SSL))
        return nginx.static(self.index.root, port=self.port).replace(listen, ssl.replace("PEM", str(pem)))


@dataclass(kw_only=True)
class OursTls(Ours):
    """``deployer up`` with HTTPS."""

    name = "deployer, TLS"
    tls_port: int = field(default_factory=free_port)

    @property
    def simple_url(self) -> str:
        return f"https://{_HOST}:{self.tls_port}/{self.told.partition('//')[2].partition('/')[2]}"

    def start(self) -> None:
        self.more = ("--set", "network.tls.cert=auto", "--set", f"network.tls.port={self.tls_port}")
        super().start()


def tls(bench: Bench) -> list[Grid]:
    """Requests a second for a page, megabytes a second for a wheel."""
    grid = Grid(title="Warm serving by HTTPS (requests/s)", columns=(*PAGES, *FILES, "not 2xx"))
    grid.base, grid.ratios = NginxStaticTls.name, (*PAGES, *FILES)
    with ExitStack() as stack:
        peers = bench.all_up((NginxStaticTls, OursTls), grid, stack)
        in_turns(grid, {name: partial(_rates, bench, peer) for name, peer in peers.items()}, rounds=bench.scale.rounds)
    grid.notes.append("Pages are asked for as JSON, by HTTP/1.1 on connections that are kept.")
    for columns, limit in ((PAGES, 0.8), (FILES, 0.9)):
        for column in columns:
            what = f"warm {column.removesuffix(', MB/s')} by HTTPS / {NginxStaticTls.name}"
            values = grid.ratio(OursTls.name, column)
            grid.goals.append(Goal(number=NUMBER, what=what, values=values, limit=limit, at_least=True))
    return [grid]


def _rates(bench: Bench, peer: Peer) -> Mapping[str, float]:
    index, seconds = bench.index, bench.scale.seconds
    file = file_url(peer.simple_url, index.longest, index.wheels[index.longest].filename)
    for project in (index.usual, index.longest):
        page(peer.simple_url, project)
    rate(file, connections=1, seconds=seconds)
    usual = f"{peer.simple_url}{index.usual}/"
    pages = {name: rate(usual, connections=count, seconds=seconds, headers=JSON) for name, count in PAGES.items()}
    files = {name: rate(file, connections=count, seconds=seconds) for name, count in FILES.items()}
    return {
        **{name: each.requests for name, each in pages.items()},
        **{name: each.megabytes for name, each in files.items()},
        "not 2xx": sum(each.failed for each in (*pages.values(), *files.values())),
    }
