"""Package indexes written in Rust, each of them one program."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.deployment import listens
from benchmarks.peers.base import Peer


@dataclass(kw_only=True)
class Pypiron(Peer):
    """pypiron as a caching proxy on a disk.

    Its configuration names an upstream on this machine, and no list of malware.
    """

    name = "pypiron"

    def start(self) -> None:
        where = ("--bind-addr", f"127.0.0.1:{self.port}", "--data-dir", self.work / "data")
        upstream = ("--proxy-upstream", self.origin, "--allow-insecure-upstream", "--advisory-feed", "")
        self._run(self.tools.program("pypiron"), "serve", *where, *upstream, cwd=self.work)
        self._until(lambda: listens(self.port))


@dataclass(kw_only=True)
class Nora(Peer):
    """nora as a caching proxy on a disk, without its limit of requests a second: else the load would measure that."""

    name = "nora"
    crate = "nora-registry==1.4.3"

    def start(self) -> None:
        program = Path(self.tools.program("nora"))
        if not program.exists():
            raise SystemExit("not installed: there is no cargo, or it could not build it")
        env = {
            "NORA_HOST": "127.0.0.1",
            "NORA_PORT": str(self.port),
            "NORA_STORAGE_PATH": str(self.work / "data"),
            "NORA_PYPI_PROXY": f"{self.origin}/simple/",
            "NORA_RATE_LIMIT_ENABLED": "false",
        }
        self._run(program, "serve", env=env, cwd=self.work)
        self._until(lambda: listens(self.port))
