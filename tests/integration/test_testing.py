"""The index that other projects' tests get, from a project of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from deployer.testing import DevpiContainer, IndexFailed, RunningIndex, running_index
from tests.engines import BASE, need
from tests.integration.installers import BESIDE
from tests.own_image import share
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

PROJECT = """
import os
import subprocess
import sys


def test_upload_and_install(deployer_index, tmp_path):
    deployer_index.upload(os.environ["WHEEL"])
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-cache-dir", "--target", str(tmp_path), "acme-core"]
    subprocess.run(words, check=True, env={**os.environ, **deployer_index.environment})
    assert (tmp_path / "acme_core-1.0.dist-info").is_dir()


def test_it_is_the_same_index(deployer_index):
    listed = deployer_index.run("package", "list")
    assert listed["projects"] == ["acme-core"]
"""
KILLED = """
import os, sys, time
from deployer.testing import running_index
with running_index() as index:
    print(index.url, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def index() -> Iterator[RunningIndex]:
    with running_index() as running:
        yield running


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    made = make_wheel("acme-core", "1.0")
    path = tmp_path / made.filename
    path.write_bytes(made.content)
    return path


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/+api", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def test_a_project_of_its_own(tmp_path: Path, wheel: Path) -> None:
    """The plugin is found by its entry point; two tests share one index."""
    (tmp_path / "test_project.py").write_text(PROJECT)
    left = set(Path("/tmp").glob("deployer-testing-*"))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        words, env=os.environ | {"WHEEL": str(wheel)}, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert set(Path("/tmp").glob("deployer-testing-*")) <= left


def test_what_is_uploaded_is_installed_by_uv(index: RunningIndex, wheel: Path, tmp_path: Path) -> None:
    words = [str(BESIDE / "twine"), "upload", "--disable-progress-bar", str(wheel)]
    subprocess.run(words, check=True, env={**os.environ, **index.upload_environment()}, capture_output=True)
    assert index.upload(wheel) == []  # it is there
    words = [
        str(BESIDE / "uv"),
        "pip",
        "install",
        "-q",
        "--no-cache",
        "--target",
        str(tmp_path / "target"),
        "acme-core",
    ]
    subprocess.run(words, check=True, env={**os.environ, **index.environment})
    assert (tmp_path / "target/acme_core-1.0.dist-info").is_dir()


def test_an_upstream_is_mirrored(tmp_path: Path) -> None:
    with Upstream([make_wheel("public", "1.0")]) as upstream, running_index(upstream=upstream.simple_url) as index:
        page = httpx.get(f"{index.index_url}public/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        assert [file["filename"] for file in page.json()["files"]] == ["public-1.0-py3-none-any.whl"]


def test_a_failure_has_its_cause(index: RunningIndex) -> None:
    with pytest.raises(IndexFailed, match="no index root/none") as failed:
        index.run("package", "list", "--index", "root/none")
    assert failed.value.code
    with pytest.raises(IndexFailed, match="wings"), running_index(profile={"wings": 2}):
        pass


def test_it_ends_with_a_killed_process() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert answers(url)
        process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 60
    while answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.docker
def test_a_container(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("docker")
    held = share("docker")
    from testcontainers.core.network import Network

    monkeypatch.setenv("DEPLOYER_BASE_IMAGE", BASE)
    page = "http://packages:3141/root/dev/+simple/acme-core/"
    ask = f"import urllib.request; print(urllib.request.urlopen('{page}').read().decode())"
    with Network() as network, DevpiContainer().with_network(network).with_network_aliases("packages") as devpi:
        url = devpi.get_url()
        assert url == f"http://{devpi.get_container_host_ip()}:{devpi.get_exposed_port()}"
        devpi.index.upload(wheel)
        words = ["docker", "run", "--rm", "--network", network.name, BASE, "python3", "-c", ask]
        assert wheel.name in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    if held is not None:
        held.close()
    assert not answers(url)
    with pytest.raises(RuntimeError, match="not running"):
        devpi.get_url()
