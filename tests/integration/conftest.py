"""What integration tests share: an upstream of their own, a plain devpi-server, and ours on either engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

from tests.contained import BOTH, Contained
from tests.engines import REQUIRED, need
from tests.integration.cli import Cli
from tests.plain_devpi import PlainDevpi, init
from tests.server_process import Server
from tests.upstream import Upstream, make_sdist, make_wheel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def python7(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with deployer and devpi-server 7, as somebody would install them: an environment has one.

    It is one for all streams of a run, for it takes half a minute to make.
    """
    run = tmp_path_factory.getbasetemp()
    where = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "seven"
    with filelock.FileLock(f"{where}.lock"):
        if not (where / "made").exists():
            _install7(where)
            (where / "made").touch()
    return str(where / "bin/python")


def _install7(where: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(where)], check=True, capture_output=True)
    command = [str(where / "bin/pip"), "install", "--quiet", "--editable", f"{ROOT}[server7]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        (pytest.fail if "process" in REQUIRED else pytest.skip)(f"devpi-server 7 can't be installed: {done.stderr}")


@pytest.fixture(scope="session")
def poetry(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Skips where it can't be installed."""
    where = tmp_path_factory.mktemp("poetry") / "venv"
    uv = str(Path(sys.executable).parent / "uv")
    for command in (["venv", str(where)], ["pip", "install", "--python", str(where / "bin/python"), "poetry>=2.5"]):
        done = subprocess.run(
            [uv, *command, "--quiet"], capture_output=True, text=True, timeout=300, check=False, cwd=where.parent
        )
        if done.returncode:
            pytest.skip(f"poetry can't be installed: {done.stderr}")
    return str(where / "bin/poetry")


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


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Contained]:
    """A container for all tests of a module, as ``deployer up`` makes it, on the network of the tests' upstreams.

    An upstream has seconds to answer in which a busy machine gets much done, and which a test can wait for.
    """
    need("docker")
    home = tmp_path_factory.mktemp("contained")
    cli = Cli(home=home, engine="docker", network="host", upstream="http://127.0.0.1:9/simple/")
    try:
        up = cli.up("--no-pip", "--set", "server.request_timeout=15")
        assert up.code == 0, up.err
        yield Contained(cli)
    finally:
        cli.clean()


@pytest.fixture(params=BOTH)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server without indexes on each engine: a process that is not started yet, or a container that answers."""
    if request.param == "docker":
        yield request.getfixturevalue("container").emptied()
        return
    server = Server(tmp_path / "data")
    try:
        yield server
    finally:
        server.end()
