"""What tests of a deployment are held on: each engine, with one deployment for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines import BASE, need
from tests.integration.cli import Cli

ENGINES = [
    pytest.param("process", marks=pytest.mark.server),
    pytest.param("docker", marks=pytest.mark.docker),
]


@contextmanager
def deployed(engine: str, home: Path, profile: dict[str, Any], **extra: str) -> Iterator[Cli]:
    """A deployment of ``profile`` on ``engine``, for as long as the context lasts. A container shares this host's
    network, so that it reaches the upstreams of tests at the same addresses as a process does."""
    need(engine)
    home.chmod(0o755)  # the container's user goes through it
    path = home / "team.yaml"
    cli = Cli(home=home, engine=engine, extra={"DEPLOYER_PROFILE": str(path), **extra})
    where = {"engine": engine, "data": str(cli.data), "image": {"base": BASE}}
    network = {"port": cli.port, "mode": "host"}
    path.write_text(yaml.safe_dump({"extends": "default", **where, "network": network, **profile}))
    done = cli.run("up", "--no-pip", timeout=900)
    try:
        assert done.code == 0, done.err
        yield cli
    finally:
        cli.clean()
