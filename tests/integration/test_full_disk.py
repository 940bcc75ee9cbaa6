"""A disk that fills up while it serves: what is here is sent, what can not be kept is refused, room heals all."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.contained import BOTH, Contained
from tests.engines import need
from tests.indexed_server import FILE, HTML, JSON, get, make_indexes, upload
from tests.integration.cli import Cli
from tests.server_process import PATIENCE, Server
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")

HERE = make_wheel("here", "1.0", files={"data.bin": os.urandom(100_000)})
OWN = make_wheel("own", "1.0", files={"data.bin": os.urandom(100_000)})
LATER = make_wheel("own", "2.0", files={"data.bin": os.urandom(100_000)})
MISSING = make_wheel("missing", "1.0", files={"data.bin": os.urandom(100_000)})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(params=BOTH)
def server(request: pytest.FixtureRequest, disk: Path, tmp_path: Path) -> Iterator[Server]:
    if request.param == "process":
        alone = Server(disk / "data")
        try:
            yield alone.start()
        finally:
            alone.end()
        return
    need("docker")
    extra = {"DEPLOYER_STATE_DIR": str(tmp_path / "state")}
    cli = Cli(home=disk, engine="docker", network="host", upstream="http://127.0.0.1:9/simple/", extra=extra)
    try:
        up = cli.up("--no-pip", "--set", "server.min_free=1m")
        assert up.code == 0, up.err
        yield Contained(cli).emptied()
    finally:
        cli.clean()


def page(project: str) -> str:
    return f"/root/dev/+simple/{project}/"


def path_of(server: Server, wheel: Distribution) -> str:
    told = json.loads(get(server.port, page(wheel.project), JSON).body)
    return urljoin(
        page(wheel.project), next(file["url"] for file in told["files"] if file["filename"] == wheel.filename)
    )


@contextlib.contextmanager
def full(disk: Path) -> Iterator[None]:
    fill(disk)
    try:
        yield
    finally:
        (disk / "ballast").unlink()


def fill(disk: Path) -> None:
    """Take what is left of a disk: a commit that just ends gives some of it back."""
    with pytest.raises(OSError, match="No space left"), (disk / "ballast").open("ab", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))


def test_what_is_here_is_served_and_what_was_acknowledged_stays(server: Server, disk: Path) -> None:
    with Upstream([HERE, MISSING]) as upstream:
        auth = server.auth
        make_indexes(server.port, auth, upstream)
        assert upload(server, auth, "root/dev", OWN) == 200
        known = {
            wheel: (path_of(server, wheel), get(server.port, page(wheel.project), HTML).body) for wheel in (HERE, OWN)
        }
        for wheel, (path, _) in known.items():
            assert get(server.port, path, FILE).body == wheel.content
        missing = path_of(server, MISSING)
        with full(disk):
            deadline = time.monotonic() + PATIENCE  # a write check holds for some seconds
            while get(server.port, "/+ready", {}).status != 503:
                assert time.monotonic() < deadline
                time.sleep(0.5)
                fill(disk)
            for _ in range(3):
                assert upload(server, auth, "root/dev", LATER) >= 500
                for wheel, (path, html) in known.items():
                    assert get(server.port, page(wheel.project), HTML).body == html
                    assert get(server.port, path, FILE).body == wheel.content
                # It may be sent without being kept. What must not be is a short one that looks whole.
                got = get(server.port, missing, FILE)
                assert got.status >= 500 or not got.whole or got.body == MISSING.content
        assert LATER.filename.encode() not in get(server.port, page("own"), JSON).body
        assert upload(server, auth, "root/dev", LATER) == 200
        assert get(server.port, missing, FILE).body == MISSING.content
        for wheel in (HERE, OWN, LATER):
            assert get(server.port, path_of(server, wheel), FILE).body == wheel.content
