"""An image that no nginx could be had for: it serves, and `up` and `doctor` say in a line what is lost and the cure."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import BASE, need
from tests.indexed_server import JSON, get
from tests.integration.cli import Cli, Done
from tests.own_image import alone
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.docker

TAG = "localhost/deployer-test-base-without-nginx:1"
DOCKERFILE = f"""\
FROM {BASE}
RUN dpkg --purge --force-all $(dpkg-query -W -f '${{Package}}\\n' '*nginx*'); \\
    rm -rf /var/lib/apt/lists/* /etc/apt/sources.list*; \\
    echo 'deb [trusted=yes] http://127.0.0.1:9/ nowhere main' >/etc/apt/sources.list; \\
    ! command -v nginx
"""


@pytest.fixture
def bare() -> Iterator[str]:
    """The tests' base without nginx, where apt reaches nothing."""
    need("docker")
    subprocess.run(["docker", "build", "--tag", TAG, "-"], input=DOCKERFILE.encode(), check=True, capture_output=True)
    with alone("docker"):
        yield TAG
    subprocess.run(["docker", "rmi", "--force", TAG], check=True, capture_output=True)


def told(done: Done) -> list[str]:
    """The lines about nginx."""
    return [line for line in done.err.splitlines() if "nginx" in line and line.startswith("warning")]


def test_what_is_lost_is_told_with_the_cure_and_the_cure_works(bare: str, tmp_path: Path) -> None:
    with Upstream([make_wheel("alpha", "1.0")]) as upstream:
        cli = Cli(home=tmp_path, engine="docker", network="host", upstream=upstream.simple_url)
        try:
            up = cli.up("--no-pip", "--base-image", bare)
            assert up.code == 0, up.err
            (line,) = told(up)
            assert "nginx is not installed" in line
            assert "--base-image" in line
            assert get(cli.port, "/root/dev/+simple/alpha/", JSON).status == 200
            assert told(cli.up("--no-pip", "--base-image", bare)) == [line]
            checks = {check["name"]: check for check in cli.run("doctor", "--json").data["checks"]}
            assert checks["front"]["level"] == "warning"
            assert f"{checks['front']['evidence']}; fix: {checks['front']['cure']}" in line
            assert told(cli.up("--no-pip", "--base-image", bare, "--set", "server.front=python")) == []

            cured = cli.up("--no-pip")  # the base of the other tests, which has nginx
            assert cured.code == 0, cured.err
            assert told(cured) == []
            assert str(cli.run("status", "--json").data["front"]).startswith("nginx ")
            assert get(cli.port, "/root/dev/+simple/alpha/", JSON).status == 200
        finally:
            cli.clean()
