"""The page "Offline at the customer's", followed line by line; there, in a namespace without a route."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.upstream import Upstream, make_sdist, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/how-to/offline-customer.md"
BACKEND = (
    "def build_wheel(directory, config_settings=None, metadata_directory=None):\n"
    "    import zipfile\n"
    "    name = 'acme_source-1.0-py3-none-any.whl'\n"
    "    with zipfile.ZipFile(f'{directory}/{name}', 'w') as wheel:\n"
    "        info = 'acme_source-1.0.dist-info'\n"
    "        wheel.writestr(f'{info}/METADATA', 'Metadata-Version: 2.1\\nName: acme-source\\nVersion: 1.0\\n')\n"
    "        wheel.writestr(f'{info}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
    "        wheel.writestr(f'{info}/RECORD', '')\n"
    "        wheel.writestr('acme_source.py', '')\n"
    "    return name\n"
)
SOURCE = {"pyproject.toml": '[build-system]\nrequires = ["acme-build"]\nbuild-backend = "acme_build"\n'}
POETRY = """
[project]
name = "consumer"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["acme-locked"]
[tool.poetry]
package-mode = false
"""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    distributions = [
        make_wheel("acme-app", "1.0", requires=["acme-source"]),
        make_sdist("acme-source", "1.0", files=SOURCE),
        make_wheel("acme-build", "3.0", files={"acme_build.py": BACKEND}),
        make_wheel("acme-locked", "2.0"),
        make_wheel("pip", "99.0"),  # pip looks whether there is a newer one
    ]
    with Upstream(distributions) as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path, upstream: Upstream) -> Iterator[Cli]:
    need("process")
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    made = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url, name="devpi")
    try:
        yield made
    finally:
        made.clean()


def follow(cli: Cli, lines: str, poetry: str, *around: str) -> None:
    """Type each line in the directory of the project; all must succeed."""
    env = {
        **cli.env,
        "PATH": f"{Path(sys.executable).parent}:{Path(poetry).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
        "DEPLOYER_ENGINE": cli.engine,
        "DEPLOYER_PORT": str(cli.port),
        "DEPLOYER_UPSTREAM": cli.upstream,
        "UV_PYTHON": sys.executable,
    }
    script = "\n".join(f"{line} || {{ echo 'failed: {line}' >&2; exit 1; }}" for line in lines.splitlines())
    done = subprocess.run(
        [*around, "bash", "-c", script], env=env, cwd=cli.home, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_offline_at_the_customers(cli: Cli, upstream: Upstream, poetry: str) -> None:
    (profile,) = blocks("yaml")
    (source,) = blocks("toml")
    prove, install, missing = blocks("sh")
    (cli.home / "customer.yaml").write_text(profile)
    (cli.home / "requirements.txt").write_text("acme-app\n")
    (cli.home / "pyproject.toml").write_text(POETRY + source.replace("3141", str(cli.port)))
    # poetry locks through the index, of a project that is there before its profile.
    follow(cli, "deployer up --no-warm --profile customer.yaml\npoetry lock --no-interaction", poetry)
    follow(cli, prove, poetry)
    upstream.forget()
    # The machine is carried away: it wakes up in a network that leads nowhere.
    assert cli.run("stop").code == 0
    there = f"ip link set lo up\n{install}deployer stop\n"
    follow(cli, there, poetry, "unshare", "--net")
    for tool in ("pip", "uv"):
        assert {path.name for path in (cli.home / "here" / tool).glob("*.py")} == {"acme_app.py", "acme_source.py"}
    assert list(cli.home.rglob("site-packages/acme_locked.py"))
    assert upstream.requests == ()
    assert cli.run("start").code == 0
    follow(cli, missing, poetry)
