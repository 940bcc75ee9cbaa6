"""A deployment of ours, and the very same container without us."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.deployment import Deployment, new, until_it_answers
from benchmarks.peers.base import TakesUploads, post


@dataclass(kw_only=True)
class Ours(TakesUploads):
    """``deployer up`` with no option set but the engine, the port, the directory and the upstream."""

    name = "deployer"
    engine: str = "process"
    made: Deployment | None = None
    more: tuple[str, ...] = ()
    """Further options of ``up``."""
    told: str = ""
    password: str = ""

    @property
    def simple_url(self) -> str:
        return self.told

    @property
    def database(self) -> Path | None:
        return next(self.made.data.rglob(".sqlite"), None) if self.made is not None else None

    def start(self) -> None:
        if self.made is None:
            made = new(self.engine, upstream=f"{self.origin}/simple/", command=self.tools.deployer)
            self.made = replace(made, more=self.more)
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

    def pids(self) -> set[int]:
        assert self.made is not None
        return self.made.processes()

    def upload(self, filename: str, content: bytes) -> None:
        assert self.made is not None
        self.password = self.password or self.made.password
        post(f"{self.url}/root/dev/", filename, content, auth=("root", self.password))


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
