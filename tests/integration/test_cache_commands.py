"""`deployer cache` as a user has it: what was installed is listed, pruned, and fetched again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contained import BOTH
from tests.engines import need
from tests.front import need_nginx
from tests.integration.cli import Cli
from tests.upstream import Upstream, make_wheel

DEMO, OTHER = make_wheel("demo", "1.0"), make_wheel("other", "2.0")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([DEMO, OTHER]) as running:
        yield running


@pytest.fixture(params=BOTH)
def cli(request: pytest.FixtureRequest, tmp_path: Path, upstream: Upstream) -> Iterator[Cli]:
    need(request.param)
    if request.param == "process":
        need_nginx()
    made = Cli(home=tmp_path, engine=request.param, network="host", upstream=upstream.simple_url)
    try:
        yield made
    finally:
        made.clean()


def listed(cli: Cli, *, uses: int) -> dict[str, Any]:
    """The projects by name, once one has been used so often, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        done = cli.run("cache", "list", "--json")
        assert done.code == 0, done.err
        found = {one["project"]: one for one in done.data["projects"]}
        if any(one["uses"] >= uses for one in found.values()) or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def download(cli: Cli, folder: str, *names: str) -> None:
    got = cli.pip("download", "--no-deps", "--no-cache-dir", "--dest", str(cli.home / folder), *names)
    assert got.returncode == 0, got.stderr


def test_what_was_installed_is_listed_pruned_and_fetched_again(cli: Cli, upstream: Upstream) -> None:
    requirements = cli.home / "requirements.txt"
    requirements.write_text("other==2.0\n")
    profile = cli.home / "team.yaml"
    profile.write_text(f"extends: default\nwarm: [{requirements}]\nserver: {{budget: 1g}}\n")
    up = cli.up("--profile", str(profile))
    assert up.code == 0, up.err
    download(cli, "first", "demo")
    found = listed(cli, uses=1)
    assert {"demo", "other"} <= found.keys()
    assert (found["demo"]["versions"], found["demo"]["origin"]) == (1, upstream.simple_url)
    assert "demo" in cli.run("cache", "list", "em").out
    assert cli.run("cache", "list", "--unused", "1d", "--json").data["projects"] == []
    assert DEMO.filename in cli.run("cache", "show", "Demo").out
    assert cli.run("cache", "show", "unknown").code == 5
    du = cli.run("cache", "du", "--json").data
    assert du["kinds"]["file"]["number"] == 2
    assert du["indexes"].keys() == {"root/pypi"}
    assert "cached files" in cli.run("cache", "du").out
    assert cli.run("cache", "prune").code == 2
    assert cli.run("cache", "prune", "--older-than", "90 days").code == 2
    dry = cli.run("cache", "prune", "--to-size", "0", "--dry-run", "--json").data
    assert (dry["dry_run"], dry["removed"]["file"]["number"], dry["spared"]["warm"]) == (True, 1, 1)
    assert "demo" in listed(cli, uses=1)
    done = cli.run("cache", "prune", "--to-size", "0", "--json").data
    assert done["removed"] == dry["removed"]
    assert "demo" not in listed(cli, uses=0)
    assert cli.run("cache", "list", "other").out
    before = upstream.files(DEMO.filename)
    download(cli, "second", "demo")
    assert upstream.files(DEMO.filename) == before + 1
    assert (cli.home / "second" / DEMO.filename).read_bytes() == DEMO.content
    checks = {check["name"]: check for check in cli.run("doctor", "--json").data["checks"]}
    assert "of 1" in checks["cache"]["evidence"]
    assert cli.run("offline", "on").code == 0
    refused = cli.run("cache", "prune", "--to-size", "0")
    assert refused.code == 5, refused.err
    assert "offline" in refused.err
