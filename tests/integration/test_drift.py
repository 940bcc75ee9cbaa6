"""What a profile declares of users and indexes against what a real deployment has: told field by field, put right by as
few requests as can be, and removed only when told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import Cli
from tests.integration.deployments import DEPLOYMENTS, deployed
from tests.upstream import make_wheel

PROFILE: dict[str, Any] = {
    "users": {"dev": {"email": "dev@example.com"}, "ci": {}},
    "groups": {"makers": ["dev", "ci"]},
    "indexes": {
        "root/pypi": {"type": "mirror", "url": "http://127.0.0.1:9/simple/"},  # never asked for anything
        "dev/work": {"type": "stage", "bases": ["root/pypi"], "volatile": True, "acl_upload": ["@makers"]},
    },
}


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    with deployed(request, tmp_path_factory.mktemp("drift"), PROFILE) as running:
        yield running


def test_a_group_has_its_rights(cli: Cli) -> None:
    shown = cli.run("index", "show", "dev/work", "--json").data
    assert shown["acl_upload"] == ["ci", "dev"]
    assert shown["bases"] == ["root/pypi"]


def test_apply_changes_one_field_by_one_request_and_tells_drift(cli: Cli) -> None:
    assert cli.run("index", "modify", "dev/work", "title=by hand", "volatile=false").code == 0
    drift = cli.run("status", "--check", "--json")
    assert (drift.code, drift.envelope["error"]["code"]) == (10, "drift")
    plan = cli.run("plan")
    assert "modify index dev/work: volatile false -> true" in plan.out
    before = len(cli.requests())
    done = cli.run("index", "apply", "--json")
    assert done.data["changes"] == ["modify index dev/work: volatile false -> true"]
    assert [one.split()[0] for one in cli.requests()[before:]] == [
        "GET",
        "GET",
        "PATCH",
        "GET",
    ]  # the last one for the pages
    assert cli.run("index", "show", "dev/work", "--json").data["title"] == "by hand"
    assert cli.run("status", "--check").code == 0


def test_an_export_declares_the_version_that_runs(cli: Cli) -> None:
    exported = cli.run("index", "export")
    assert exported.code == 0, exported.err
    wanted = yaml.safe_load((cli.home / "team.yaml").read_text())["server"]["version"]
    assert yaml.safe_load(exported.out).get("server", {}).get("version", "6") == wanted
    path = cli.home / "exported.yaml"
    path.write_text(exported.out.replace("extends: default", f"extends: {cli.home / 'team.yaml'}"))
    done = cli.run("index", "apply", "--profile", str(path), "--json")
    assert (done.code, done.data["changes"], done.data["kept"]) == (0, [], [])


def test_what_the_profile_does_not_name_goes_only_when_told_and_empty(cli: Cli, tmp_path: Path) -> None:
    assert cli.run("user", "create", "old").code == 0
    assert cli.run("index", "create", "old/empty").code == 0
    assert cli.run("index", "create", "old/full", "bases=old/empty", "acl_upload=old").code == 0
    wheel = make_wheel("acme-core", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    assert cli.run("package", "upload", str(tmp_path / wheel.filename), "--index", "old/full", "--as", "old").code == 0
    assert cli.run("index", "apply", "--prune").code == 11
    kept = cli.run("index", "apply", "--json").data["kept"]
    assert len(kept) == 3
    done = cli.run("index", "apply", "--prune", "--yes", "--json").data
    assert done["changes"] == []
    assert "a base of old/full" in " ".join(done["kept"])
    assert "deployer index delete old/full" in " ".join(done["kept"])
    refused = cli.run("index", "delete", "old/empty", "--yes")
    assert (refused.code, "a base of old/full" in refused.err) == (5, True)
    assert cli.run("index", "delete", "old/full").code == 11  # nobody was asked
    assert cli.run("index", "delete", "old/full", "--yes").code == 0
    done = cli.run("index", "apply", "--prune", "--yes", "--json").data
    assert done["changes"] == ["remove index old/empty", "remove user old"]
    assert cli.run("secret", "show", "old").code == 5


@pytest.mark.endurance_of("docker-6")
def test_fifty_indexes_that_are_right_cost_five_requests_at_most_and_a_field_two_more(cli: Cli) -> None:
    users: dict[str, Any] = {f"user{number}": {} for number in range(20)}
    indexes: dict[str, Any] = {
        f"user{number % 20}/index{number}": {"type": "stage", "bases": ["dev/work"], "acl_upload": ["@makers"]}
        for number in range(50)
    }
    whole = {"extends": str(cli.home / "team.yaml"), "users": users, "indexes": indexes}
    path = cli.home / "large.yaml"
    path.write_text(yaml.safe_dump(whole))
    assert cli.run("index", "apply", "--profile", str(path)).code == 0
    counts = []
    for change in (None, "a new title"):
        if change:
            indexes["user7/index7"]["title"] = change
            path.write_text(yaml.safe_dump(whole))
        before = len(cli.requests())
        done = cli.run("index", "apply", "--profile", str(path), "--json")
        assert len(done.data["changes"]) == (1 if change else 0)
        counts.append(len(cli.requests()) - before)
    assert counts[0] <= 5
    assert counts[1] == counts[0] + 2  # the field, and a look at what is declared now, for the pages
