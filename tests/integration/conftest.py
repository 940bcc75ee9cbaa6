"""What integration tests share: an upstream of their own and a plain devpi-server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plain_devpi import PlainDevpi, init
from tests.upstream import Upstream, make_sdist, make_wheel


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """An index with two small projects, on loopback."""
    distributions = [
        make_wheel("demo", "1.0"),
        make_wheel("demo", "1.1", requires=["demo-dep"]),
        make_wheel("demo-dep", "2.0"),
        make_sdist("demo-dep", "2.1"),
    ]
    with Upstream(distributions) as running:
        yield running


@pytest.fixture(scope="session")
def devpi_template(tmp_path_factory: pytest.TempPathFactory) -> PlainDevpi:
    """An initialised server directory to copy from: to initialise takes longer than to start."""
    serverdir = tmp_path_factory.mktemp("template") / "server"
    init(serverdir)
    return PlainDevpi(serverdir)


@pytest.fixture
def devpi_stopped(devpi_template: PlainDevpi, tmp_path: Path) -> Iterator[PlainDevpi]:
    """A devpi-server that does not run yet."""
    server = devpi_template.copy(tmp_path / "devpi")
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def devpi(devpi_stopped: PlainDevpi) -> PlainDevpi:
    """A devpi-server that answers: root has a password, there are no indexes."""
    devpi_stopped.start()
    return devpi_stopped
