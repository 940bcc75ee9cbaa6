"""What ``stats`` says that two downloads cost, of a deployment that ``up`` made, with the real pip."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.front import need_nginx
from tests.integration.cli import Cli
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server


def counted(cli: Cli, *, hits: int) -> dict[str, Any]:
    """What is told once the index has that many hits, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        told = cli.run("stats", "--json").data
        if told["indexes"].get("root/dev", {}).get("hits", 0) >= hits or time.monotonic() > deadline:
            return told
        time.sleep(0.2)


def test_a_second_download_is_a_hit_and_costs_the_upstream_nothing(tmp_path: Path) -> None:
    need_nginx()
    with Upstream([make_wheel("demo", "1.0")]) as upstream:
        cli = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url)
        try:
            assert cli.up().code == 0
            assert cli.run("stats").code == 0
            for folder in ("first", "second"):
                got = cli.pip("download", "--no-deps", "--dest", str(tmp_path / folder), "demo")
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
        finally:
            cli.clean()
    assert cli.run("stats").code == 5
