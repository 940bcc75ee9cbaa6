"""The page "Air gap", followed line by line: the other side is a network namespace without a route, and only Python."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.cli import Cli
from tests.network_lab import Namespace
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.upstream, pytest.mark.timeout(900)]

PAGE = Path(__file__).parents[2] / "docs/how-to/air-gap.md"
BESIDE = Path(sys.executable).parent
PROJECT = """
[project]
name = "consumer"
version = "1.0"
requires-python = ">=3.9"
dependencies = ["alpha", "beta"]
[tool.poetry]
package-mode = false
[[tool.poetry.source]]
name = "here"
url = "{}"
priority = "primary"
"""


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def type_in(cli: Cli, lines: str, *before: str, path: str = "/usr/bin:/bin") -> None:
    """Type each line in the directory of the deployment; all must succeed. ``before``: words before the shell."""
    here = {"DEPLOYER_ENGINE": cli.engine, "DEPLOYER_PORT": str(cli.port), "DEPLOYER_UPSTREAM": cli.upstream}
    env = {**cli.env, **{name: value for name, value in here.items() if value}, "PATH": path}
    for line in lines.replace("/tmp/wheels", f"{cli.home}/fetched").splitlines():
        words = [*before, "bash", "-c", line]
        done = subprocess.run(words, env=env, cwd=cli.home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    if os.getuid() or shutil.which("ip") is None:
        pytest.skip("only root makes network namespaces, with ip")
    made = Namespace()
    yield made
    made.remove()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    wheels = [make_wheel("alpha", "1.0", requires=["beta"]), make_wheel("beta", "1.0"), make_wheel("beta", "2.0")]
    with Upstream(wheels) as running:
        yield running


@pytest.fixture
def sides(tmp_path: Path, upstream: Upstream) -> Iterator[tuple[Cli, Cli]]:
    """A deployment here, and a machine there on which is nothing yet."""
    made = []
    for name in ("here", "there"):
        home = tmp_path / name
        home.mkdir()
        upstream_url = upstream.simple_url if name == "here" else ""
        made.append(Cli(home=home, engine="process", upstream=upstream_url, name="devpi", extra={}))
    here, there = made
    yield here, there
    here.clean()


def installed(python: Path) -> set[str]:
    """What is installed in an environment, besides its tools."""
    listed = subprocess.check_output([str(python), "-m", "pip", "list", "--format=freeze"], text=True).split()
    return {line for line in listed if line.startswith(("alpha", "beta"))}


def test_the_page(sides: tuple[Cli, Cli], namespace: Namespace, upstream: Upstream, poetry: str) -> None:
    here, there = sides
    pack, verify, load, install, manifest, delta, load_delta = blocks()
    path = f"{BESIDE}:/usr/bin:/bin"
    inside = ("ip", "netns", "exec", namespace.name)
    (here.home / "requirements.txt").write_text("alpha==1.0\nbeta==1.0\n")
    *fill, create = pack.splitlines()
    type_in(here, "\n".join(fill), path=path)
    # deployer's own wheels are not on the upstream of the tests: they come from where this host's pip gets them.
    type_in(here, f"PIP_CONFIG_FILE=/dev/null {create}", path=path)

    for name in ("air.tar", "bundle.key.pub", "requirements.txt"):
        shutil.copy(here.home / name, there.home)
    try:
        asked = len(upstream.requests)
        type_in(there, verify, *inside)
        type_in(there, load.replace("bundle load", "bundle load --engine process"), *inside, path=python_first())
        type_in(there, install, *inside, path=python_first())
        assert installed(there.home / "app/bin/python") == {"alpha==1.0", "beta==1.0"}
        uv_and_poetry(there, inside, poetry)

        type_in(there, manifest, *inside)
        shutil.copy(there.home / "have.json", here.home)
        (here.home / "newer").mkdir()
        assert here.pip("download", "--no-deps", "-d", str(here.home / "newer"), "beta==2.0").returncode == 0
        type_in(here, delta, path=path)
        assert (here.home / "delta.tar").stat().st_size < 100_000 < (here.home / "air.tar").stat().st_size
        shutil.copy(here.home / "delta.tar", there.home)
        type_in(there, load_delta, *inside)
        type_in(there, "app/bin/pip install --upgrade beta==2.0", *inside)
        assert len(upstream.requests) >= asked
    finally:
        type_in(there, "test ! -e deployer || deployer/bin/deployer down --purge --yes", *inside)


def python_first() -> str:
    """A PATH on which `python3` is the version that the wheels are for."""
    return f"{Path(sys.base_prefix) / 'bin'}:/usr/bin:/bin"


def uv_and_poetry(there: Cli, inside: tuple[str, ...], poetry: str) -> None:
    """Both install from there, into environments of their own, and know nothing but its address."""
    simple = f"{there.url}/root/dev/+simple/"
    uv = str(BESIDE / "uv")
    type_in(there, f"{uv} venv -q --python {sys.executable} of-uv", *inside)
    type_in(there, f"{uv} pip install -q --no-cache --python of-uv --index-url {simple} -r requirements.txt", *inside)
    project = there.home / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(PROJECT.format(simple))
    own = "POETRY_VIRTUALENVS_IN_PROJECT=1 POETRY_CACHE_DIR=$PWD/cache"
    own += " PYTHON_KEYRING_BACKEND=keyring.backends.null.Keyring"
    type_in(there, f"cd project && env {own} {poetry} install -q --no-interaction", *inside, path=python_first())
    for python in (there.home / "of-uv/bin/python", project / ".venv/bin/python"):
        found = "import importlib.metadata as m; print(m.version('alpha'), m.version('beta'))"
        assert subprocess.check_output([str(python), "-c", found], text=True).split() == ["1.0", "1.0"]
