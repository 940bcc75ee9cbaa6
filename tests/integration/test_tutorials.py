"""The tutorials, followed line by line, with an upstream of the tests instead of the public index."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli import Cli
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PAGES = Path(__file__).parents[2] / "docs/tutorial"


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (PAGES / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    with Upstream([make_wheel("iniconfig", "2.0.0"), make_wheel("acme-core", "9.9.9")]) as upstream:
        cli = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url, name="devpi", extra={})
        yield cli
        cli.clean()


def follow(cli: Cli, lines: str) -> None:
    """Type each line. All must succeed; ``plan`` has exit code 10, since there is something to do."""
    here = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "DEPLOYER_ENGINE": cli.engine,
        "DEPLOYER_PORT": str(cli.port),
        "DEPLOYER_UPSTREAM": cli.upstream,
    }
    for line in lines.replace("/tmp/", f"{cli.home}/tmp/").splitlines():
        done = subprocess.run(
            ["bash", "-c", line], env={**cli.env, **here}, cwd=cli.home, capture_output=True, text=True, check=False
        )
        assert done.returncode == (10 if line.startswith("deployer plan") else 0), f"{line}\n{done.stdout}{done.stderr}"


def test_the_first_index(cli: Cli) -> None:
    _install, plan, up, install, look, remove = blocks("first-index.md", "sh")
    follow(cli, plan)
    follow(cli, up)
    follow(cli, install)
    assert [path.name for path in (cli.home / "tmp").rglob("*.whl")] == ["iniconfig-2.0.0-py3-none-any.whl"] * 2
    follow(cli, look)
    follow(cli, remove)
    assert not (cli.home / ".cache/devpi").exists() and not cli.pip_conf.exists()


def test_packages_of_a_team(cli: Cli) -> None:
    (profile,) = blocks("team.md", "yaml")
    bring_up, upload, install, token = blocks("team.md", "sh")
    (cli.home / "team.yaml").write_text(profile)
    (cli.home / "dist").mkdir()
    wheel = make_wheel("acme-core", "1.0.0")
    (cli.home / "dist" / wheel.filename).write_bytes(wheel.content)
    follow(cli, bring_up)
    follow(cli, upload)
    follow(cli, install)
    # A public release of the same name with a higher version is not taken.
    assert [path.name for path in (cli.home / "tmp/wheels").iterdir()] == [wheel.filename]
    follow(cli, token)
