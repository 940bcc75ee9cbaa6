"""What ``stats`` says that two downloads cost, of a deployment that ``up`` made, with the real pip."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.contained import BOTH
from tests.engines import need
from tests.front import need_nginx
from tests.integration.cli import Cli
from tests.plain_devpi import free_port
from tests.upstream import Upstream, make_wheel


@pytest.fixture(params=BOTH)
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    if request.param == "process":
        need_nginx()
    made = Cli(home=tmp_path, engine=request.param, network="host")
    try:
        yield made
    finally:
        made.clean()


def counted(cli: Cli, *, hits: int) -> dict[str, Any]:
    """What is told once the index has that many hits, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        told = cli.run("stats", "--json").data
        if told["indexes"].get("root/dev", {}).get("hits", 0) >= hits or time.monotonic() > deadline:
            return told
        time.sleep(0.2)


def scraped(address: str) -> dict[str, float]:
    """What Prometheus would know: each series and its number."""
    text = httpx.get(f"http://{address}/metrics", trust_env=False, timeout=60).text
    pairs = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {series: float(number) for series, _, number in pairs}


@pytest.mark.endurance_of("docker")
def test_a_second_download_is_a_hit_and_costs_the_upstream_nothing(cli: Cli) -> None:
    address = f"127.0.0.1:{free_port()}"
    with Upstream([make_wheel("demo", "1.0")]) as upstream:
        cli.upstream = upstream.simple_url
        assert cli.up("--set", f"server.metrics={address}").code == 0
        assert cli.run("stats").code == 0
        for folder in ("first", "second"):
            got = cli.pip("download", "--no-deps", "--dest", str(cli.home / folder), "demo")
            assert got.returncode == 0, got.stderr
        told = counted(cli, hits=1)
        assert (upstream.pages("demo"), upstream.files()) == (1, 1)
        (asked,) = told["upstreams"].values()
        assert (asked["requests"], asked["failures"]) == (2, 0)
        assert told["indexes"]["root/dev"]["hits"] >= 1
        assert told["indexes"]["root/dev"]["bytes_saved"] > 0
        text = cli.run("stats").out
        assert "root/dev" in text
        assert upstream.url in text
        series = scraped(address)
        for name in ("requests", "hits", "misses"):
            assert series[f'deployer_{name}_total{{index="root/dev"}}'] >= told["indexes"]["root/dev"][name] > 0
        assert series[f'deployer_upstream_requests_total{{upstream="{upstream.url}"}}'] == 2
        assert series[f'deployer_upstream_slowest_seconds{{upstream="{upstream.url}"}}'] == asked["slowest"] > 0
        assert cli.run("down", "--purge", "--yes").code == 0
    assert cli.run("stats").code == 5


@pytest.mark.docker
def test_prometheus_is_answered_through_a_bridge_where_it_was_told_to_ask(tmp_path: Path) -> None:
    need("docker")
    cli = Cli(home=tmp_path, engine="docker", upstream="http://127.0.0.1:9/simple/")
    address = f"127.0.0.1:{free_port()}"
    try:
        assert cli.up("--no-pip", "--set", f"server.metrics={address}").code == 0
        deadline = time.monotonic() + 60
        while not any("root/dev" in series for series in scraped(address)):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        cli.clean()
