"""What a server is that is compared: brought up as its own documentation says, on the same files as all others."""

from __future__ import annotations

import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import httpx

from benchmarks.deployment import free_port
from benchmarks.index import Index
from benchmarks.processes import peak, tree
from benchmarks.tools import Tools

LOCAL: dict[str, Any] = {"trust_env": False, "verify": False}
"""For requests to this machine, none of them encrypted: reading all CA certificates takes longer than they do."""
PRIVATE = "bench-private"


@dataclass(kw_only=True)
class Peer(ABC):
    """One server. ``work``: a directory of its own; ``origin``: its upstream, ``http://host:port``."""

    name: ClassVar[str]
    mirrors: ClassVar[bool] = True
    """Whether it fetches from an upstream what it does not have."""
    crate: ClassVar[str] = ""
    """What cargo has to build for it: ``name==version``."""
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

    @property
    def database(self) -> Path | None:
        """devpi's SQLite database, where it is devpi's."""
        return None

    @abstractmethod
    def start(self) -> None:
        """Bring it up on what is in ``work``; return when it answers."""

    def stop(self) -> None:
        """End it; its data stays."""
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:  # the others are to be ended all the same
                process.kill()
                process.wait()
        self.processes.clear()

    def restart(self) -> None:
        self.stop()
        self.start()

    def remove(self) -> None:
        """End it, and delete what it had."""
        self.stop()
        shutil.rmtree(self.work, ignore_errors=True)

    def pids(self) -> set[int]:
        """All its processes."""
        return tree(*(process.pid for process in self.processes))

    def peak(self) -> float:
        """MiB of all its processes, each at its worst moment."""
        return peak(self.pids())

    def _run(self, *words: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
        self.work.mkdir(parents=True, exist_ok=True)
        with (self.work / "log").open("ab") as log:
            self.processes.append(
                subprocess.Popen(
                    [str(word) for word in words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={**self.tools.env, **(env or {})},
                    cwd=cwd,
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


def post(url: str, filename: str, content: bytes, *, auth: tuple[str, str] | None) -> None:
    """Publish one wheel as twine does. Raises httpx.HTTPError when it is refused."""
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
