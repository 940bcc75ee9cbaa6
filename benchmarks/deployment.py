"""A deployment of the benchmarks' own, in a home of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import mentioning, tree

KEPT = ("PATH", "LANG", "DOCKER_HOST", "PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "DEPLOYER_BASE_IMAGE")
PATIENCE = 120.0
LOWEST_PORT = 20_000


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """One deployment on ``engine`` by the program ``command``; ``home`` holds all of it."""

    command: Path
    engine: str
    home: Path
    name: str
    port: int
    upstream: str
    more: tuple[str, ...] = ()
    """Further options of ``up``."""

    @property
    def env(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in KEPT if key in os.environ}
        base = {"DEPLOYER_BASE_IMAGE": os.environ["DEPLOYER_TEST_BASE"]} if "DEPLOYER_TEST_BASE" in os.environ else {}
        return {**base, **kept, "HOME": str(self.home), "DEPLOYER_NAME": self.name}

    @property
    def data(self) -> Path:
        return self.home / "data"

    def words(self, verb: str) -> list[str]:
        """``up`` or ``plan`` with what makes it this deployment."""
        where = [
            "--engine",
            self.engine,
            "--port",
            str(self.port),
            "--data",
            str(self.data),
            "--upstream",
            self.upstream,
        ]
        return [verb, *where, *self.more, *(["--no-pip"] if verb == "up" else [])]

    def run(self, words: Sequence[str], *, codes: Sequence[int] = (0,)) -> str:
        """Standard output of ``deployer WORDS``; anything but one of ``codes`` ends the benchmark."""
        done = subprocess.run([self.command, *words], env=self.env, capture_output=True, text=True, check=False)
        if done.returncode not in codes:
            raise SystemExit(f"deployer {' '.join(words)}: exit code {done.returncode}\n{done.stderr}{done.stdout}")
        return done.stdout

    def up(self) -> dict[str, Any]:
        return dict(json.loads(self.run([*self.words("up"), "--json"]))["data"])

    def down(self) -> None:
        self.run(["down", "--engine", self.engine])

    def purge(self) -> None:
        """Nothing of it is left."""
        self.run(["down", "--engine", self.engine, "--purge", "--yes"], codes=(0, 5))
        shutil.rmtree(self.home, ignore_errors=True)

    def restart(self) -> None:
        self.run(["restart", "--engine", self.engine])

    def processes(self) -> set[int]:
        """All that runs for it, supervisor and front included."""
        if self.engine == "process":
            return tree(*mentioning(str(self.data)))
        words = ["docker", "inspect", "--format={{.State.Pid}}", self.name]
        return tree(int(subprocess.check_output(words, env=self.env, text=True)))

    @property
    def password(self) -> str:
        return self.run(["secret", "show", "root"]).strip()


@contextmanager
def deployment(engine: str, *, upstream: str, command: Path) -> Iterator[Deployment]:
    """A deployment that is up; nothing of it is left at the end."""
    made = new(engine, upstream=upstream, command=command)
    try:
        made.up()
        yield made
    finally:
        made.purge()


def new(engine: str, *, upstream: str, command: Path) -> Deployment:
    """A deployment that is not up yet."""
    home = Path(tempfile.mkdtemp(prefix="deployer-benchmark-"))
    home.chmod(0o755)
    name = f"deployer-bench-{uuid.uuid4().hex[:6]}"
    return Deployment(command=command, engine=engine, home=home, name=name, port=free_port(), upstream=upstream)


def free_port() -> int:
    """A port that nobody has, and that no connection is given for its own end while a server is down.

    The kernel takes those from a range of its own (ip(7), ``ip_local_port_range``). Raises SystemExit.
    """
    candidates = list(range(LOWEST_PORT, _connections_from()))
    random.shuffle(candidates)
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise SystemExit(f"no port from {LOWEST_PORT} is free")


def _connections_from() -> int:
    with contextlib.suppress(OSError, ValueError):
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        if lowest > LOWEST_PORT:
            return lowest
    return 1 << 15  # what Linux begins with unless told otherwise


def listens(port: int) -> bool:
    """Whether anything takes a connection."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(port: int, path: str = "/+api") -> bool:
    """Whether one request is answered by 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Accept": "*/*"})  # proxpi answers 406 without
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return response.status == 200


def until_it_answers(port: int, path: str = "/+api") -> float:
    """The moment of the first 200, found by asking without a pause worth the name. Raises SystemExit."""
    deadline = time.monotonic() + PATIENCE
    while not answers(port, path):
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing on port {port} answers {path} within {PATIENCE:.0f} s")
        time.sleep(0.002)
    return time.perf_counter()
