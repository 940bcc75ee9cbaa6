"""The real clients, many at once, on an index that has nothing yet: all of them install, the upstream is asked once."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contained import DOCKER, PROCESS
from tests.indexed_server import FILE, make_indexes
from tests.server_process import Server
from tests.upstream import Upstream, make_wheel

DEPENDENCIES = tuple(f"dependency-{number}" for number in range(6))
SIZE = 300_000
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-cache-dir", "--quiet")
UV = ("uv", "pip", "install", "--no-cache", "--quiet", "--python", sys.executable)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    blob = {"data.bin": os.urandom(SIZE)}
    wheels = [make_wheel(name, "1.0", files=blob) for name in DEPENDENCIES]
    with Upstream([make_wheel("app", "1.0", requires=DEPENDENCIES), *wheels]) as running:
        running.faults.latency = 0.05
        running.faults.bandwidth = 2 * 2**20
        yield running


@pytest.mark.parametrize(
    ("anywhere", "client", "number"),
    [
        pytest.param(engine.values[0], client, number, marks=engine.marks)
        # pip is slow: the crowd of it comes to one of the two, where it is as good as the few.
        for engine, of_pip in ((PROCESS, 8), (DOCKER, 32))
        for client, number in (("pip", of_pip), ("uv", 8), ("uv", 32))
    ],
    indirect=["anywhere"],
)
def test_everybody_installs_and_each_thing_is_fetched_once(
    client: str, number: int, tmp_path: Path, upstream: Upstream, anywhere: Server
) -> None:
    if client == "uv" and shutil.which("uv", path=environment(tmp_path)["PATH"]) is None:
        pytest.skip("uv is not installed")
    server = anywhere.start()
    make_indexes(server.port, server.auth, upstream)
    install = (
        *(PIP if client == "pip" else UV),
        "--index-url",
        f"http://127.0.0.1:{server.port}/root/dev/+simple/",
    )
    clients = [
        subprocess.Popen(
            [*install, "--target", str(tmp_path / f"target{one}"), "app"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(tmp_path),
            cwd=tmp_path,
        )
        for one in range(number)
    ]
    for name in ("app", *DEPENDENCIES):
        hang_up(server, f"/root/dev/+simple/{name}/")
    told = [one.communicate(timeout=240)[0].decode() for one in clients]
    assert [one.returncode for one in clients] == [0] * number, [text for text in told if text]
    for name in ("app", *DEPENDENCIES):
        assert upstream.pages(name) == 1, name
    for wheel in upstream.distributions:
        assert upstream.files(wheel.filename) == 1, wheel.filename
    for one in range(number):
        assert len(list((tmp_path / f"target{one}").glob("*.dist-info"))) == len(upstream.distributions)


def environment(home: Path) -> dict[str, str]:
    """Nothing of the host's own configuration of pip and uv."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(home), "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "UV_LINK_MODE": "copy"}


def hang_up(server: Server, path: str) -> None:
    """Ask, and don't wait for the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers=FILE)
    connection.close()
