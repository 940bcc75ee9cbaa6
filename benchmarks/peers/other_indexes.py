"""Other package indexes written in Python."""

from __future__ import annotations

import json
from dataclasses import dataclass

from benchmarks.deployment import listens
from benchmarks.peers.base import Peer, TakesUploads, post


@dataclass(kw_only=True)
class Proxpi(Peer):
    """proxpi under gunicorn, as its image runs it: one process, two threads."""

    name = "proxpi"

    @property
    def simple_url(self) -> str:
        return f"{self.url}/index/"

    def start(self) -> None:
        env = {"PROXPI_INDEX_URL": f"{self.origin}/simple/", "PROXPI_CACHE_DIR": str(self.work / "cache")}
        where = ("--bind", f"127.0.0.1:{self.port}", "--threads", "2", "--log-level", "error")
        self._run(self.tools.program("gunicorn"), *where, "proxpi.server:app", env=env)
        self._until(lambda: listens(self.port))


@dataclass(kw_only=True)
class Pypiserver(TakesUploads):
    """pypiserver on a directory: it holds what is put there, and mirrors nothing."""

    name = "pypiserver"
    mirrors = False

    def start(self) -> None:
        packages = self.work / "packages"
        if not packages.exists():
            packages.mkdir(parents=True)
            for page in (self.index.root / "simple").glob("*/index.json"):
                for file in json.loads(page.read_bytes())["files"]:
                    (packages / file["filename"]).touch()
            for wheel in self.index.wheels.values():
                (packages / wheel.filename).write_bytes(wheel.content)
        where = ("--interface", "127.0.0.1", "--port", str(self.port))
        open_to_all = ("--disable-fallback", "--authenticate", ".", "--passwords", ".")
        self._run(self.tools.program("pypi-server"), "run", *where, *open_to_all, packages)
        self._until(lambda: listens(self.port))

    def upload(self, filename: str, content: bytes) -> None:
        post(f"{self.url}/", filename, content, auth=None)
