"""What options put over a profile belongs to what was deployed: later commands are held to it, and say so."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.cli import Cli

pytestmark = pytest.mark.server

UPSTREAM = "http://127.0.0.1:9/simple/"  # never asked for anything
INDEXES = {"root/dev": {"type": "stage", "bases": ["root/pypi"], "title": "first", "volatile": False}}


def write(path: Path, **more: object) -> str:
    path.write_text(yaml.safe_dump({"extends": "default", "indexes": INDEXES, **more}))
    return str(path)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(home=tmp_path, engine="process", upstream=UPSTREAM)
    try:
        yield made
    finally:
        made.clean()


def test_a_check_is_held_to_what_up_was_told(cli: Cli) -> None:
    profile = write(cli.home / "team.yaml")
    variable = {"DEPLOYER_TIMEOUT": "300"}
    more = ("--set", "server.threads=20", "--set", "indexes.root/dev.volatile=true", "--no-pip")
    assert cli.up("--profile", profile, *more, env=variable).code == 0

    for words in ((), ("--profile", profile), ("--profile", "team.yaml")):
        done = cli.run("status", "--check", "--json", *words)
        assert (done.code, done.data["drift"]) == (0, []), (words, done.err)
        told = done.data["compared_with"]
        assert (told["profile"], told["overrides"]["server.threads"]) == (profile, "20")
        assert told["overrides"]["server.ready_timeout"] == 300
    assert "server.threads, indexes.root/dev.volatile, engine," in cli.run("status", "--check").out
    assert cli.run("index", "apply", "--json").data["changes"] == []

    # The profile itself is read anew, and what was put over it stays there.
    indexes = {**INDEXES, "root/dev": {**INDEXES["root/dev"], "title": "second"}}
    write(cli.home / "team.yaml", indexes=indexes, server={"threads": 30, "mirror_cache_expiry": 60})
    done = cli.run("status", "--check", "--json")
    assert (done.code, done.data["drift"]) == (10, ["server", "indexes"])
    error = done.envelope["error"]
    assert "of the last `up`" in error["message"]
    assert cli.run("index", "apply", "--json").data["changes"] == ["modify index root/dev: title first -> second"]
    cure = shlex.split(error["hint"])
    assert cure[:2] == ["deployer", "up"]
    healed = cli.run(*cure[1:], "--no-pip")
    assert healed.code == 0, healed.err
    assert cli.run("status", "--check").code == 0

    # Another profile counts as it is written.
    where = {"engine": "process", "data": str(cli.data), "network": {"port": cli.port}}
    other = write(cli.home / "other.yaml", **where)
    done = cli.run("status", "--check", "--json", "--profile", other)
    assert (done.code, done.data["compared_with"]["overrides"]) == (10, {})

    # What the next `up` is not told is no longer meant.
    indexes["root/pypi"] = {"type": "mirror", "url": UPSTREAM}
    write(cli.home / "team.yaml", indexes=indexes, **where)
    assert cli.run("up", "--profile", profile, "--no-pip").code == 0
    done = cli.run("status", "--check", "--json")
    assert (done.code, set(done.data["compared_with"]["overrides"])) == (0, {"image.base"})
    assert cli.run("index", "show", "root/dev", "--json").data["volatile"] is False


def test_what_somebody_changed_by_hand_is_still_told(cli: Cli) -> None:
    profile = write(cli.home / "team.yaml")
    assert cli.up("--profile", profile, "--no-pip").code == 0
    assert cli.run("index", "modify", "root/dev", "title=by hand").code == 0
    done = cli.run("status", "--check", "--json")
    assert (done.code, done.data["drift"]) == (10, ["indexes"])


def test_a_plan_is_that_of_the_up_that_it_names(cli: Cli) -> None:
    assert cli.up("--set", "server.threads=20", "--no-pip").code == 0
    less = cli.run("plan", *cli.up_words()[1:], "--json")
    assert (less.code, "server" in json.loads(less.out)["data"]["changes"]) == (10, True)
    (told,) = (warning for warning in json.loads(less.out)["warnings"] if "the last `up`" in warning)
    assert "options of the last `up`: server.threads; " in told
    again = shlex.split(told.partition("to keep them: ")[2])
    assert again[:4] == ["deployer", "up", "--name", cli.name]
    assert "server.threads=20" in again
    same = cli.run("plan", *again[2:], "--set", "clients.configure=[]", "--json")
    assert (same.code, same.data["changes"]) == (0, [])

    other = cli.run("plan", *again[2:], "--set", "server.request_timeout=99", "--json")
    hint = shlex.split(other.envelope["error"]["hint"])
    assert hint[:2] == ["deployer", "up"]
    assert cli.run(*hint[1:], "--no-pip", "--json").data["changes"] == ["server changed"]
    assert cli.run("render", "--json").data["engine"] == "process"  # whatever else this host has


def test_doctor_and_move_act_on_what_was_deployed(cli: Cli) -> None:
    profile = write(cli.home / "team.yaml")
    assert cli.up("--profile", profile, "--set", "server.threads=20", "--no-pip").code == 0
    checks = {check["name"]: check["level"] for check in cli.run("doctor", "--json").data["checks"]}
    assert "failure" not in {level for name, level in checks.items() if name != "upstream"}, checks
    elsewhere = cli.home / "elsewhere"
    moved = cli.run("move", "--data", str(elsewhere), "--json")
    assert (moved.code, moved.data["url"]) == (0, cli.url), moved.err
    told = cli.run("status", "--check", "--json").data
    assert (told["drift"], told["data_dir"]) == ([], str(elsewhere))
    assert told["compared_with"]["overrides"]["server.threads"] == "20"
