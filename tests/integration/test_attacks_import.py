"""Modules that somebody planted where a command, a server or a container works: none of them is ever imported."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.upstream import Upstream, make_wheel

PLANTED = (
    *("json", "argparse", "socket", "logging", "pip", "uv", "yaml", "sqlite3", "devpi_server", "devpi_web"),
    *("deployer", "sitecustomize", "usercustomize", "runpy", "encodings"),
)


def plant(directory: Path, marker: Path) -> None:
    """Each module leaves ``marker`` behind, in a file and as a package."""
    directory.mkdir(exist_ok=True)
    code = f"import os\nos.close(os.open({str(marker)!r}, os.O_CREAT | os.O_WRONLY))\n"
    for name in PLANTED:
        (directory / name).mkdir()
        (directory / name / "__init__.py").write_text(code)
        (directory / name / "__main__.py").write_text(code)


def command(cli: Cli, cwd: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The command as it is installed, in another directory."""
    argv = [str(Path(cli.python).with_name("deployer")), *words]
    return subprocess.run(
        argv, cwd=cwd, env={**cli.env, **env}, capture_output=True, text=True, timeout=900, check=False
    )


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("demo", "1.0")]) as running:
        yield running


@pytest.mark.server
def test_a_module_in_the_current_directory_is_not_run(tmp_path: Path, upstream: Upstream) -> None:
    need("process")
    cli = Cli(home=tmp_path, engine="process", upstream=upstream.simple_url)
    planted, marker = tmp_path / "planted", tmp_path / "marker"
    plant(planted, marker)
    set_url = ("--set", f"indexes.root/pypi.url={upstream.simple_url}", "--set", f"network.port={cli.port}")
    where = ("--engine", "process", "--data", str(cli.data))
    try:
        for words in (
            ("plan", *where, *set_url),
            ("up", "--no-pip", *where, *set_url),
            *(("doctor",), ("audit", "demo"), ("restart",), ("status",), ("render", *where, *set_url)),
            ("move", "--data", str(tmp_path / "moved")),
            *(("exec", "--", "true"), ("index", "list"), ("secret", "show", "root"), ("down", "--purge", "--yes")),
        ):
            done = command(cli, planted, *words, PYTHONPATH="", PYTHONDONTWRITEBYTECODE="1")
            assert "unexpected" not in done.stderr, (words, done.stderr)
            assert "Usage:" not in done.stderr, (words, done.stderr)
            assert not marker.exists(), words
    finally:
        cli.clean()


@pytest.mark.docker
def test_a_module_in_the_container_is_not_run(tmp_path: Path, upstream: Upstream) -> None:
    need("docker")
    cli = Cli(home=tmp_path, engine="docker", network="host", upstream=upstream.simple_url)
    tmp_path.chmod(0o755)
    docker = ("docker", "exec", cli.name)
    try:
        done = cli.up("--no-pip", timeout=900)
        assert done.code == 0, done.err
        code = "import os; os.close(os.open('/data/marker', os.O_CREAT | os.O_WRONLY))"
        for place in ("/tmp", "/data"):
            for name in PLANTED:
                lines = f'mkdir -p {place}/{name} && echo "{code}" | tee {place}/{name}/__init__.py >{place}/{name}.py'
                subprocess.run([*docker, "sh", "-c", lines], check=True, capture_output=True)
        refused = subprocess.run([*docker, "touch", "json.py"], capture_output=True, text=True, check=False)
        assert refused.returncode != 0  # in the directory where the container works
        told = subprocess.run(
            ["docker", "inspect", "--format={{json .Config}}", cli.name], capture_output=True, text=True, check=True
        )
        config = json.loads(told.stdout)
        check = subprocess.run(
            [*docker, *config["Healthcheck"]["Test"][1:]], capture_output=True, text=True, check=False
        )
        assert check.returncode == 0, check.stderr
        for words in (("doctor",), ("secret", "show", "root"), ("restart",), ("status",)):
            done = cli.run(*words)
            assert done.code == 0 or words == ("doctor",), done.err
        plain = [*docker, "/opt/deployer/bin/python", "-m", "deployer.server", "health", "--serverdir", "/data"]
        assert subprocess.run(plain, capture_output=True, check=False).returncode == 0
        assert not (cli.data / "marker").exists()
        assert config["WorkingDir"] == "/"
    finally:
        cli.clean()
