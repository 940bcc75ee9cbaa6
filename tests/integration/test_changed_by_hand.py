"""A container that somebody else changes is told, and healed; the engine's client adds nothing to it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli

PROXY = "http://user:s3cret@127.0.0.1:9"


@pytest.fixture(params=[pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("docker", "podman")])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    """A user whose clients of both engines know a proxy with a password, and no mirror, so that none is needed."""
    need(request.param)
    (tmp_path / "client").mkdir()
    proxies = {"default": {"httpProxy": PROXY, "httpsProxy": PROXY}}
    (tmp_path / "client/config.json").write_text(json.dumps({"proxies": proxies}))
    extra = {"DOCKER_CONFIG": str(tmp_path / "client"), "HTTPS_PROXY": PROXY, "https_proxy": PROXY}
    made = Cli(home=tmp_path, engine=request.param, upstream="http://127.0.0.1:9/simple/", extra=extra)
    try:
        yield made
    finally:
        made.clean()


def engine(cli: Cli, *words: str) -> str:
    return subprocess.run([cli.engine, *words], capture_output=True, text=True, check=True).stdout


def test_what_was_changed_by_hand_is_told_and_healed(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    assert "s3cret" not in engine(cli, "inspect", cli.name)
    before = cli.run("status", "--check", "--json")
    assert (before.code, before.data["drift"]) == (0, [])
    if cli.engine == "docker":
        engine(cli, "update", "--restart=no", "--memory=512m", "--memory-swap=512m", cli.name)
        changed = ["restart policy: no -> unless-stopped", "memory limit: 536870912 -> 268435456"]
    else:
        # podman 4.3 does not report what its `update` changed: somebody makes the container anew, with our labels.
        made = json.loads(engine(cli, "inspect", "--format={{json .Config.CreateCommand}}", cli.name))
        engine(cli, "rm", "--force", cli.name)
        dropped = ("--restart", "--memory", "--cap-drop")
        engine(cli, *(word for word in made[1:] if not word.startswith(dropped)))
        assert cli.run("start").code == 0
        changed = ["restart policy: no -> unless-stopped", "memory limit: 0 -> 268435456", "privileges: more than"]
    told = cli.run("status", "--check")
    assert told.code == 10, told.err
    plan = cli.run("plan", *cli.up_words()[1:])
    assert plan.code == 10
    for line in changed:
        assert f"changed by hand: {line}" in told.err
        assert f"changed by hand: {line}" in plan.out
    healed = cli.up("--no-pip", "--json")
    assert healed.data["server"] == "recreated", healed.err
    after = cli.run("status", "--check", "--json")
    assert (after.code, after.data["drift"]) == (0, [])
    assert after.data["server_uuid"] == before.data["server_uuid"]
    assert "s3cret" not in engine(cli, "inspect", cli.name)
    assert cli.up("--no-pip", "--json").data["changes"] == []
