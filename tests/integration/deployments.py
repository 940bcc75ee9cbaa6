"""What tests of a deployment are held on: each engine and each version of our own server, with one deployment for all
tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines import BASE, need
from tests.integration.cli import Cli


@dataclass(frozen=True)
class Kind:
    engine: str
    server: str = "6"

    def __str__(self) -> str:
        return f"{self.engine}-{self.server}"


def _param(kind: Kind) -> Any:
    marks = {"process": pytest.mark.server, "docker": pytest.mark.docker}
    return pytest.param(kind, id=str(kind), marks=marks[kind.engine])


PROCESS, SEVEN = Kind("process"), Kind("process", "7")
"""The second one needs an interpreter of its own: ``python7``."""
ENGINES = [_param(PROCESS), _param(Kind("docker"))]
DEPLOYMENTS = [*ENGINES, _param(SEVEN), _param(Kind("docker", "7"))]


@contextmanager
def deployed(request: pytest.FixtureRequest, home: Path, profile: dict[str, Any], **extra: str) -> Iterator[Cli]:
    """A deployment of ``profile``, of the kind that is the fixture's parameter, for as long as the context lasts.

    A container shares this host's network, so that it reaches the upstreams of tests where a process reaches them.
    """
    kind: Kind = request.param
    need(kind.engine)
    home.chmod(0o755)  # the container's user goes through it
    path = home / "team.yaml"
    cli = Cli(home=home, engine=kind.engine, extra={"DEPLOYER_PROFILE": str(path), **extra})
    if kind == SEVEN:
        cli.python = request.getfixturevalue("python7")  # a process is the devpi-server that is installed
    where = {"engine": kind.engine, "data": str(cli.data), "image": {"base": BASE}}
    network = {"port": cli.port, "mode": "host"}
    server = {"version": kind.server, **profile.get("server", {})}
    whole = {"extends": "default", **profile, **where, "network": network, "server": server}
    path.write_text(yaml.safe_dump(whole))
    done = cli.run("up", "--no-pip", timeout=900)
    try:
        assert done.code == 0, done.err
        yield cli
    finally:
        cli.clean()
