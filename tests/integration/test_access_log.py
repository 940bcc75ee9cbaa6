"""The access log: however much is asked for, a few files of about a size, and every request counted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.contained import BOTH, Contained
from tests.engines import need
from tests.front import PIP, ask, need_nginx
from tests.indexed_server import make_indexes
from tests.integration.cli import Cli
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

SIZE, FILES = 16 * 1024, 3
BURST, BURSTS = 120, 6
PAGE = "/root/counted/+simple/alpha/"


@pytest.fixture(params=BOTH)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "process":
        need_nginx()
        alone = Server(tmp_path / "data")
        try:
            yield alone.start("--front", "nginx", "--log-max-size", str(SIZE), "--log-max-files", str(FILES))
        finally:
            alone.end()
        return
    need("docker")
    cli = Cli(home=tmp_path, engine="docker", network="host", upstream="http://127.0.0.1:9/simple/")
    try:
        up = cli.up("--no-pip", *("--set", "server.log_max_size=16k"), *("--set", f"server.log_max_files={FILES}"))
        assert up.code == 0, up.err
        yield Contained(cli).emptied()
    finally:
        cli.clean()


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def counted(server: Server) -> int:
    try:
        told = json.loads((server.private / "statistics.json").read_text())
    except FileNotFoundError:
        return 0
    return int(told["indexes"].get("root/counted", {"requests": 0})["requests"])


def is_moved(log: Path) -> bool:
    """Whether nginx has gone over to a file that is not too large."""
    try:
        return (log / "access.log").stat().st_size <= SIZE
    except FileNotFoundError:
        return False


@pytest.mark.endurance_of("docker")
def test_it_stays_small_and_no_request_is_lost(server: Server) -> None:
    log = server.private / "log"
    with Upstream([make_wheel("alpha", "1.0")]) as upstream:
        make_indexes(server.port, server.auth, upstream)
        # An index that nobody else asks for anything. That it was made is one request.
        stage = {"type": "stage", "bases": ["root/pypi"]}
        assert request(server.port, "PUT", "/root/counted", body=stage, headers=server.auth)[0] == 200
        largest = 0
        for burst in range(1, BURSTS + 1):
            for _ in range(BURST):
                assert ask(server.port, PAGE, PIP).status == 200
            until(lambda burst=burst: counted(server) == 1 + burst * BURST)  # type: ignore[misc]
            until(partial(is_moved, log))  # only after it was counted
            files = {path.name: path.stat() for path in log.glob("access.log*")}
            assert files.keys() <= {"access.log", "access.log.1", "access.log.2"}
            largest = max(largest, sum(told.st_size for told in files.values()))
    line = len((log / "access.log.1").read_bytes().splitlines()[-1]) + 1
    assert BURSTS * BURST * line > 2 * largest  # most of what was written is gone
    assert largest < FILES * (SIZE + 2 * BURST * line)
