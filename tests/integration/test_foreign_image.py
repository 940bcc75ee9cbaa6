"""A devpi image that is not ours: seeded and secured as far as it lets itself be, refused where it would lose data."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployer.image import reference
from tests.engines import need
from tests.integration.cli import Cli

pytestmark = pytest.mark.docker

TAG = "localhost/deployer-test-plain-devpi:1"
# devpi-server as its own documentation starts it, with nothing of ours, from the wheels that our image has anyway.
# The small parameters are for the tests' time; they concern the key of login tokens only.
BUILD_FILE = f"""
FROM {reference()}
ENTRYPOINT ["/bin/sh", "-c", "/opt/deployer/bin/devpi-init || true; exec /opt/deployer/bin/devpi-server \
 --host 0.0.0.0 --port 3141 --argon2-memory-cost 8 --argon2-time-cost 1 --argon2-parallelism 1"]
CMD []
HEALTHCHECK NONE
"""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    need("docker")
    Cli(home=tmp_path_factory.mktemp("home"), engine="docker").have_image()
    subprocess.run(["docker", "build", "--tag", TAG, "-"], input=BUILD_FILE.encode(), check=True, capture_output=True)
    return TAG


@pytest.fixture
def cli(image: str, tmp_path: Path) -> Iterator[Cli]:
    made = Cli(home=tmp_path, engine="docker")
    try:
        yield made
    finally:
        made.clean()


def up(cli: Cli, *words: str, serverdir: str = "/data"):  # type: ignore[no-untyped-def]
    return cli.up("--image", TAG, "--set", f"image.env.DEVPISERVER_SERVERDIR={serverdir}", *words)


def login(cli: Cli, password: str) -> int:
    answer = httpx.post(
        f"{cli.url}/+login",
        json={"user": "root", "password": password},
        headers={"Accept": "application/json"},
        trust_env=False,
        timeout=180,
    )
    return answer.status_code


def test_it_is_seeded_and_its_empty_password_replaced(cli: Cli) -> None:
    first = up(cli)
    assert first.code == 0, first.err
    assert "root/dev created" in first.err
    assert login(cli, "") == 401
    assert login(cli, cli.run("secret", "show", "root").out.strip()) == 200
    status = cli.run("status", "--json")
    assert (status.code, status.data["indexes"], status.data["server_version"]) == (
        0,
        ["root/dev", "root/pypi"],
        "6.20.3",
    )

    again = up(cli, "--json")
    assert (again.code, again.data["changes"]) == (0, [])

    changed = up(cli, "--set", "server.memory=300m", "--json")
    assert (changed.code, changed.data["changes"]) == (0, ["server recreated"])
    assert cli.run("status", "--json").data["server_uuid"] == status.data["server_uuid"]


def test_a_password_that_somebody_else_set_is_asked_for(cli: Cli) -> None:
    first = up(cli)
    assert first.code == 0, first.err
    (cli.home / "state").rename(cli.home / "lost")

    unknown = up(cli, "--set", "indexes.root/dev.volatile=true")
    assert unknown.code == 7
    assert f"deployer secret set --name {cli.name} root" in unknown.err

    known = (cli.home / "lost" / cli.name / "secrets" / "root.password").read_text()
    assert cli.run("secret", "set", "root", stdin=known).code == 0
    assert up(cli, "--set", "indexes.root/dev.volatile=true").code == 0


def test_data_that_would_be_lost_is_found_out(cli: Cli) -> None:
    failed = up(cli, serverdir="/tmp/elsewhere")
    assert failed.code == 9
    assert "image.data_path" in failed.err
    assert cli.run("status", "--json").data["state"] == "absent"
    assert not cli.data.exists()


def test_its_words_are_shown_when_it_ends_at_once(cli: Cli) -> None:
    failed = cli.up("--image", TAG, "--set", "image.env.DEVPISERVER_REQUEST_TIMEOUT=soon", "--json")
    assert failed.code == 6
    assert "soon" in "".join(failed.envelope["error"]["details"])


def test_it_moves_with_its_data_though_it_can_not_copy(cli: Cli) -> None:
    assert up(cli).code == 0
    before = cli.run("status", "--json").data
    there = cli.home / "elsewhere"
    moved = cli.run("move", "--data", str(there), "--json")
    assert moved.code == 0, moved.out
    after = cli.run("status", "--json").data
    assert (after["server_uuid"], after["image"], after["data_dir"]) == (before["server_uuid"], TAG, str(there))
