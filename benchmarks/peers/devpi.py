"""devpi-server as its own commands make it, alone and behind its own nginx."""

from __future__ import annotations

import re
import secrets
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks import nginx
from benchmarks.deployment import free_port, listens, until_it_answers
from benchmarks.peers.base import LOCAL, TakesUploads, post

CHEAP = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
"""devpi's key derivation at the cost of none: what a random secret allows, and what a deployment of ours has."""


@dataclass(kw_only=True)
class PlainDevpi(TakesUploads):
    """devpi-server as its own commands make it: a stage index on a mirror, as in a deployment of ours.

    Only the derivation of its key is made cheap; else each start would take ten seconds more.
    """

    name = "devpi"
    cost: tuple[str, ...] = CHEAP
    password: str = "benchmark"  # noqa: S105 - of a server that ends with the run

    @property
    def simple_url(self) -> str:
        return f"{self.url}/root/dev/+simple/"

    @property
    def data(self) -> Path:
        return self.work / "data"

    @property
    def database(self) -> Path:
        return self.data / ".sqlite"

    @property
    def inner_port(self) -> int:
        return self.port

    def words(self) -> list[str]:
        where = ["--serverdir", str(self.data), "--host", "127.0.0.1", "--port", str(self.inner_port)]
        return [self.tools.program("devpi-server"), *where, "--secretfile", str(self.work / "secret"), *self.cost]

    def prepare(self) -> bool:
        """Initialise the data directory; False when that was done before."""
        if self.data.exists():
            return False
        self.work.mkdir(parents=True, exist_ok=True)
        self.work.chmod(0o700)
        (self.work / "secret").write_text(secrets.token_urlsafe(32))
        (self.work / "secret").chmod(0o600)
        init = [self.tools.program("devpi-init"), "--serverdir", str(self.data), "--no-root-pypi"]
        env = {**self.tools.env, "DEVPISERVER_ROOT_PASSWD": self.password}
        subprocess.run(init, check=True, capture_output=True, env=env)
        return True

    def start(self) -> None:
        fresh = self.prepare()
        self._run(*self.words())
        self._until(lambda: listens(self.inner_port))
        until_it_answers(self.inner_port)
        if fresh:
            self._make_indexes()

    def _make_indexes(self) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.inner_port}", timeout=60, **LOCAL) as client:
            login = client.post("/+login", json={"user": "root", "password": self.password}).raise_for_status()
            auth = httpx.BasicAuth("root", login.json()["result"]["password"])
            mirror = {"type": "mirror", "mirror_url": f"{self.origin}/simple/", "volatile": False}
            stage = {"type": "stage", "bases": "root/pypi", "volatile": True}
            for name, values in (("pypi", mirror), ("dev", stage)):
                client.put(f"/root/{name}", json=values, auth=auth).raise_for_status()

    def upload(self, filename: str, content: bytes) -> None:
        post(f"{self.url}/root/dev/", filename, content, auth=("root", self.password))


@dataclass(kw_only=True)
class DevpiBehindNginx(PlainDevpi):
    """The same behind nginx, with the configuration that ``devpi-gen-config`` writes."""

    name = "devpi-gen-config"
    inside: int = field(default_factory=free_port)

    @property
    def inner_port(self) -> int:
        return self.inside

    def start(self) -> None:
        super().start()
        made = self.work / "generated"
        if not made.exists():
            made.mkdir()
            words = ["--serverdir", str(self.data), "--host", "127.0.0.1", "--port", str(self.inside)]
            words = [self.tools.program("devpi-gen-config"), *words, "--secretfile", str(self.work / "secret")]
            subprocess.run(words, cwd=made, check=True, capture_output=True, env=self.tools.env)
        text = (made / "gen-config/nginx-devpi.conf").read_text()
        text = re.sub(r"listen 80;", f"listen 127.0.0.1:{self.port} backlog=1024;", text)
        front = nginx.Nginx(self.work / "nginx", text, self.port)
        front.start()
        assert front.process is not None
        self.processes.append(front.process)
