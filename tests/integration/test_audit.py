"""`deployer audit` on real deployments: merged mirrors are found out, an ordered index is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines import need
from tests.integration.cli import Cli
from tests.integration.deployments import DEPLOYMENTS, SEVEN
from tests.server_process import request
from tests.upstream import Faults, Upstream, make_wheel

CANARY = "c4n4ry-0f-an-audit"


@pytest.fixture
def public() -> Iterator[Upstream]:
    with Upstream([make_wheel("acme-core", "9.9.9"), make_wheel("pubonly", "1.0")]) as running:
        yield running


@pytest.fixture
def private() -> Iterator[Upstream]:
    with Upstream([make_wheel("acme-core", "1.1.0")], Faults(auth=("deploy", CANARY))) as running:
        yield running


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param.engine)
    beside = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where uv is, whoever runs deployer
    extra = {"PRIVATE_TOKEN": CANARY, "PATH": beside, "DEPLOYER_SET": f"server.version={request.param.server}"}
    made = Cli(home=tmp_path, engine=request.param.engine, network="host", extra=extra)
    if request.param == SEVEN:
        made.python = request.getfixturevalue("python7")
    try:
        yield made
    finally:
        made.clean()


def use(cli: Cli, public: Upstream, private: Upstream, **dev: Any) -> None:
    indexes = {
        "root/pypi": {"type": "mirror", "url": public.simple_url},
        "root/private": {
            "type": "mirror",
            "url": private.simple_url,
            "credentials": {"username": "deploy", "password": "env:PRIVATE_TOKEN"},
            "owns": ["acme-*"],
        },
        "root/dev": {"bases": ["root/private", "root/pypi"], **dev},
    }
    (cli.home / "team.yaml").write_text(yaml.safe_dump({"extends": "default", "indexes": indexes}))
    cli.extra["DEPLOYER_PROFILE"] = str(cli.home / "team.yaml")


def versions(cli: Cli, project: str) -> str:
    got = cli.pip("download", "--no-deps", "--retries", "0", "-d", str(cli.home / project), project)
    return " ".join(path.name for path in (cli.home / project).glob("*")) if got.returncode == 0 else "nothing"


@pytest.mark.parametrize("cli", DEPLOYMENTS[:3], indirect=True)
def test_an_ordered_index_closes_before_it_confuses_and_passes_the_audit(
    cli: Cli, public: Upstream, private: Upstream
) -> None:
    use(cli, public, private, type="ordered")
    assert cli.up().code == 0
    private.faults.status = 503
    assert versions(cli, "acme-core") == "nothing"
    private.faults.status = 0
    assert versions(cli, "acme-core") == "acme_core-1.1.0-py3-none-any.whl"
    assert versions(cli, "pubonly") == "pubonly-1.0-py3-none-any.whl"
    assert request(cli.port, "GET", "/root/pypi/+simple/acme-core/", headers={"User-Agent": "pip/24"})[0] == 200
    done = cli.run("audit", "--json")
    assert done.code == 0, done.err
    (found,) = done.data["projects"]
    assert found["known_in"] == ["root/private", "root/pypi"]
    assert (found["owner"], found["served_by"]) == ("root/private", ["root/private"])
    assert found["got"] == {"pip": "root/private", "uv": "root/private"}
    assert CANARY not in done.out + done.err + cli.run("logs").out
    assert public.lists == private.lists == 0
    assert cli.run("status", "--json").envelope["warnings"] == []
    if cli.engine == "docker":
        assert (cli.data / ".deployer/credentials").stat().st_uid == cli.data.stat().st_uid != 0
        inspected = cli.run("exec", "--", "docker", "inspect", cli.name)
        assert inspected.code == 0 and CANARY not in inspected.out


@pytest.mark.parametrize("cli", DEPLOYMENTS[:1], indirect=True)
def test_mirrors_that_are_merged_by_insistence_are_found_out(cli: Cli, public: Upstream, private: Upstream) -> None:
    use(cli, public, private, type="stage")
    assert cli.up().code == 11
    use(cli, public, private, type="stage", accept_confusion=True)
    up = cli.up("--json")
    assert up.code == 0
    (warning,) = up.envelope["warnings"]
    assert "root/dev merges the mirrors root/private and root/pypi" in warning
    assert cli.run("status", "--json").envelope["warnings"] == [warning]
    done = cli.run("audit", "acme-core", "--json")
    assert done.code == 9
    (found,) = done.data["projects"]
    assert found["served_by"] == ["root/private", "root/pypi"]
    assert found["got"] == {"pip": "root/pypi", "uv": "root/pypi"}
    assert "type: ordered" in done.envelope["error"]["hint"]


@pytest.mark.docker
def test_credentials_reach_a_server_whose_data_is_a_volume(tmp_path: Path, public: Upstream, private: Upstream) -> None:
    need("docker")
    made = Cli(home=tmp_path, engine="docker", network="host", extra={"PRIVATE_TOKEN": CANARY})
    use(made, public, private, type="ordered")
    try:
        up = made.run(
            "up", "--engine", "docker", "--network", "host", "--port", str(made.port), "--data", f"volume:{made.name}"
        )
        assert up.code == 0, up.err
        assert versions(made, "acme-core") == "acme_core-1.1.0-py3-none-any.whl"
        assert CANARY not in up.out + up.err
    finally:
        made.clean()
