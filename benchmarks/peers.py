"""The servers that are compared, each brought up as its own documentation says, and all on the same files."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx

from benchmarks import nginx
from benchmarks.deployment import Deployment, free_port, listens, new, until_it_answers
from benchmarks.index import Index
from benchmarks.processes import peak, tree
from benchmarks.tools import Tools

CHEAP = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
"""devpi's key derivation at the cost of none: what a random secret allows, and what a deployment of ours has."""
LOCAL: dict[str, Any] = {"trust_env": False, "verify": False}
"""For requests to this machine, none of them encrypted: reading all CA certificates takes longer than they do."""
PRIVATE = "bench-private"


@dataclass(kw_only=True)
class Peer(ABC):
    """One server. ``work``: a directory of its own; ``origin``: its upstream, ``http://host:port``."""

    name: ClassVar[str]
    mirrors: ClassVar[bool] = True
    """Whether it fetches from an upstream what it does not have."""
    tools: Tools
    index: Index
    work: Path
    origin: str = ""
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def simple_url(self) -> str:
        """What an installer is given."""
        return f"{self.url}/simple/"

    @abstractmethod
    def start(self) -> None:
        """Bring it up on what is in ``work``; return when it answers."""

    def stop(self) -> None:
        """End it; its data stays."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(30)
        self.processes.clear()

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it, and delete what it had."""
        self.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def peak(self) -> float:
        """MiB of all its processes, each at its worst moment."""
        return peak(tree(*(process.pid for process in self.processes)))

    def _run(self, *words: str | Path, env: dict[str, str] | None = None) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [str(word) for word in words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**self.tools.env, **(env or {})},
                )
            )

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > deadline:
                raise SystemExit(f"{self.name} does not start:\n{(self.work / 'log').read_text()[-3000:]}")
            time.sleep(0.005)


class TakesUploads(Peer):
    """One that packages can be published on."""

    @abstractmethod
    def upload(self, filename: str, content: bytes) -> None:
        """Publish one wheel as twine does. Raises httpx.HTTPError when it is refused."""


@dataclass(kw_only=True)
class _OfNginx(Peer):
    server: nginx.Nginx | None = None

    @abstractmethod
    def _http(self) -> str:
        """Its ``http`` block."""

    def start(self) -> None:
        self.server = nginx.Nginx(self.work / "nginx", self._http(), self.port)
        self.server.start()
        assert self.server.process is not None
        self.processes.append(self.server.process)


@dataclass(kw_only=True)
class NginxStatic(_OfNginx):
    """The same files, sent by nginx from the disk: as fast as it gets."""

    name = "nginx static"
    mirrors = False

    def _http(self) -> str:
        return nginx.static(self.index.root, port=self.port)


@dataclass(kw_only=True)
class NginxCache(_OfNginx):
    """nginx as a cache of the upstream that knows nothing of packages."""

    name = "nginx proxy_cache"

    def _http(self) -> str:
        return nginx.caching(self.origin, port=self.port, cache=self.work / "cache")


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
        _post(f"{self.url}/", filename, content, auth=None)


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
        _post(f"{self.url}/root/dev/", filename, content, auth=("root", self.password))


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


@dataclass(kw_only=True)
class Ours(TakesUploads):
    """``deployer up`` with no option set but the engine, the port, the directory and the upstream."""

    name = "deployer"
    engine: str = "process"
    made: Deployment | None = None
    told: str = ""
    password: str = ""

    @property
    def simple_url(self) -> str:
        return self.told

    def start(self) -> None:
        if self.made is None:
            self.made = new(self.engine, upstream=f"{self.origin}/simple/", command=self.tools.deployer)
            self.port = self.made.port
        self.told = str(self.made.up()["simple_url"])

    def stop(self) -> None:
        if self.made is not None:
            self.made.down()

    def restart(self) -> None:
        assert self.made is not None
        self.made.restart()

    def remove(self) -> None:
        if self.made is not None:
            self.made.purge()
            self.made = None

    def peak(self) -> float:
        assert self.made is not None
        return peak(self.made.processes())

    def upload(self, filename: str, content: bytes) -> None:
        assert self.made is not None
        self.password = self.password or self.made.password
        _post(f"{self.url}/root/dev/", filename, content, auth=("root", self.password))


@dataclass(kw_only=True)
class OursOnDocker(Ours):
    """The same in a container, on the host's network."""

    name = "deployer on docker"
    engine: str = "docker"


@dataclass(kw_only=True)
class DockerRun(OursOnDocker):
    """The very same container by one ``docker run``, in the words of ``deployer render``, and nothing around it."""

    name = "docker run"
    words: tuple[str, ...] = ()

    def start(self) -> None:
        if self.made is None:
            super().start()
            assert self.made is not None
            render = [*self.made.words("render"), "--format", "argv"]
            self.words = tuple(shlex.split(self.made.run(render)))
            return
        subprocess.run(self.words, env=self.made.env, check=True, capture_output=True)
        until_it_answers(self.port)


ALL: tuple[type[Peer], ...] = (
    NginxStatic,
    NginxCache,
    Proxpi,
    Pypiserver,
    PlainDevpi,
    DevpiBehindNginx,
    Ours,
)


def _post(url: str, filename: str, content: bytes, *, auth: tuple[str, str] | None) -> None:
    name, version = filename.split("-")[:2]
    data = {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.1",
        "name": name.replace("_", "-"),
        "version": version,
        "filetype": "bdist_wheel",
        "pyversion": "py3",
    }
    files = {"content": (filename, content)}
    httpx.post(url, data=data, files=files, auth=auth, timeout=60, **LOCAL).raise_for_status()


def named(names: Sequence[str]) -> tuple[type[Peer], ...]:
    """The peers of these names, in the usual order. Raises KeyError."""
    known = {peer.name: peer for peer in (*ALL, OursOnDocker, DockerRun)}
    return tuple(known[name] for name in names)
