"""In a container of 256 MiB: many first requests at once, big files, an upstream that hangs, and kills."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.contained import Contained
from tests.engines import need
from tests.indexed_server import FILE, HTML, JSON, at_once, get
from tests.integration.cli import Cli
from tests.server_process import PATIENCE, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.docker

BIG = make_wheel("big", "1.0", files={"big.bin": bytes(48 * 2**20)})
PAGE = "/root/dev/+simple/{}/"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("alpha", "1.0"), BIG]) as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path, upstream: Upstream) -> Iterator[Cli]:
    need("docker")
    made = Cli(home=tmp_path, engine="docker", network="host", upstream=upstream.simple_url)
    try:
        yield made
    finally:
        made.clean()


def test_a_small_container_serves_many_at_once(cli: Cli, upstream: Upstream) -> None:
    done = cli.up("--no-pip", "--set", "server.memory=256m")
    assert done.code == 0, done.err
    answers = at_once(cli.port, [(PAGE.format("alpha"), headers) for headers in (JSON, HTML)] * 16)
    assert {got.status for got in answers} == {200}
    assert upstream.pages("alpha") == 1
    told = json.loads(get(cli.port, PAGE.format("big"), JSON).body)
    path = urljoin(PAGE.format("big"), told["files"][0]["url"])
    for _ in range(2):
        answers = at_once(cli.port, [(path, FILE)] * 12)
        assert {len(got.body) for got in answers} == {len(BIG.content)}
    assert upstream.files() == 1
    state = "{{.State.OOMKilled}} {{.HostConfig.Memory}} {{.RestartCount}}"
    told_state = subprocess.check_output(["docker", "inspect", f"--format={state}", cli.name], text=True)
    assert told_state.split() == ["false", str(256 * 2**20), "0"]

    known = get(cli.port, PAGE.format("alpha"), JSON).body
    upstream.faults.hang = True
    subprocess.run(["docker", "kill", cli.name], check=True, capture_output=True)
    assert cli.run("start").code == 0
    assert get(cli.port, PAGE.format("alpha"), JSON).body == known


def test_a_front_that_is_killed_alone_is_there_again_and_nobody_was_refused(container: Contained) -> None:
    runs = container.run_of_it()
    for _ in range(3):
        before = container.front
        container.kill_front()
        # The port stays taken: who connects now waits.
        assert request(container.port, "GET", "/+api")[0] == 200
        deadline = time.monotonic() + PATIENCE
        while container.front in ("", before):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert container.run_of_it() == runs
