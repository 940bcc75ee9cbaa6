"""Package indexes written in Rust, each of them one program."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.deployment import listens
from benchmarks.peers.base import Peer


@dataclass(kw_only=True)
class Pypiron(Peer):
    """pypiron as a caching proxy on a disk.

    It is told what it needs for an upstream on this machine, and that there is no list of malware to fetch.
    """

    name = "pypiron"

    def start(self) -> None:
        where = ("--bind-addr", f"127.0.0.1:{self.port}", "--data-dir", self.work / "data")
        upstream = ("--proxy-upstream", self.origin, "--allow-insecure-upstream", "--advisory-feed", "")
        self._run(self.tools.program("pypiron"), "serve", *where, *upstream, cwd=self.work)
        self._until(lambda: listens(self.port))
