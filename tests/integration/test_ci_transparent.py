"""Jobs whose clients keep the upstream's addresses: the action, and the commands of the page on CI as they stand."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.ci_runner import BASH, GitHubJob, Store
from tests.integration.test_tutorials import blocks
from tests.transparent_lab import INDEX_URL, Lab, lab

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]
UV = shlex.quote(str(Path(sys.executable).parent / "uv"))
PROJECT = '[project]\nname = "acme"\nversion = "1.0"\nrequires-python = ">=3.11"\ndependencies = ["demo"]\n'


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("ci")) as made:
        yield made


def files(world: Lab) -> list[str]:
    """The files that anybody asked the upstream for."""
    return [request.path for request in world.upstream.requests if request.path.endswith((".whl", ".tar.gz"))]


def preinstalled(directory: Path) -> Path:
    """A directory with ``deployer``, and a ``pip`` to which deployer and its extras are installed already."""
    directory.mkdir()
    python = shlex.quote(sys.executable)
    (directory / "deployer").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {python} -m deployer "$@"\n')
    (directory / "pip").write_text(
        '#!/bin/sh\ncase "$*" in *devpi-deployer*) exit 0 ;; esac\n'
        f'exec {python} -m pip --disable-pip-version-check "$@" --no-cache-dir --target target\n'
    )
    for path in directory.iterdir():
        path.chmod(0o755)
    return directory


def test_the_action_keeps_a_lock_file_as_it_is(world: Lab, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    store = Store(directory=tmp_path / "store")
    python = tmp_path / "python3"
    python.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"\n'
        f'mkdir -p "$3/bin"; ln -s {sys.executable} "$3/bin/python"; ln -s /bin/true "$3/bin/pip"\n'
        f'printf \'#!/bin/sh\\nPYTHONPATH={ROOT} exec {sys.executable} -m deployer "$@"\\n\' >"$3/bin/deployer"\n'
        'chmod +x "$3/bin/deployer"\n'
    )
    python.chmod(0o755)
    for number in (1, 2):
        world.upstream.forget()
        shell = world.machine.on_it(*BASH, cwd=tmp_path)
        env = {name: value for name, value in world.env.items() if name != "DEPLOYER_STATE_DIR"}
        job = GitHubJob(temp=tmp_path / "temp", store=store, env=env, shell=shell)
        job.uses(ROOT, {"python": str(python)})
        (job.temp / "acme").mkdir()
        (job.temp / "acme/pyproject.toml").write_text(PROJECT)
        job.run(f"cd {job.temp}/acme && {UV} lock --no-cache && {UV} sync --frozen --no-cache --no-install-project")
        text = (job.temp / "acme/uv.lock").read_text()
        assert INDEX_URL.rstrip("/") in text and "127.0.0.1" not in text
        assert bool(files(world)) is (number == 1)
        assert job.uses(ROOT / "save") == {"saved": str(number == 1).lower()}
        assert "::add-mask::" in job.log
        job.run("deployer down")
        job.end()
        subprocess.run(["rm", "-r", str(job.temp)], check=True)


def test_the_commands_of_the_page_on_ci(world: Lab, tmp_path: Path) -> None:
    (script,) = blocks(ROOT / "docs/how-to/ci.md", "sh")
    (tmp_path / "requirements.txt").write_text("demo\n")
    tools = preinstalled(tmp_path / "bin")
    for number in (1, 2):
        world.upstream.forget()
        path = f"{tools}:{world.env['PATH']}"
        env = {"PATH": path, "HOME": str(tmp_path), "DEPLOYER_STATE_DIR": str(tmp_path / "state")}
        done = world.run("sh", "-ec", script, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert bool(files(world)) is (number == 1), done.stdout
        assert (tmp_path / "target").is_dir()
        subprocess.run(["rm", "-r", str(tmp_path / "target")], check=True)
    assert "(unchanged)" in done.stdout
    assert {one.name for one in (tmp_path / "state").rglob("*") if one.is_file()} == {"lock"}
