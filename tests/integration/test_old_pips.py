"""Each kind of pip that is still in use installs through the index: each read pages in a way of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.testing import RunningIndex, running_index
from tests.upstream import Upstream, make_sdist, make_wheel

pytestmark = pytest.mark.server

VERSIONS = ("21.3.1", "22.3.1", "23.0.1", "23.1.2", "25.0.1")
"""HTML only; then JSON with metadata apart from the wheel, whose promise those before 23.2 can't read in JSON."""


@pytest.fixture(scope="module")
def pips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pips")
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory)]
    for version in VERSIONS:
        subprocess.run([*words, f"pip=={version}"], check=True)
    return directory


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningIndex]:
    """Of an upstream with metadata files, and with an upload."""
    upload = make_wheel("own", "1.0")
    path = tmp_path_factory.mktemp("own") / upload.filename
    path.write_bytes(upload.content)
    public = [
        make_wheel("app", "1.0", requires=("library", "own")),
        make_wheel("library", "1.0"),
        make_sdist("app", "0.9"),
    ]
    with Upstream(public, core_metadata=True) as upstream, running_index(upstream=upstream.simple_url) as running:
        running.upload(path)
        yield running


@pytest.mark.parametrize("version", VERSIONS)
def test_it_installs(version: str, pips: Path, index: RunningIndex, tmp_path: Path) -> None:
    pip = pips / f"pip-{version}-py3-none-any.whl/pip"
    words = ["--isolated", "--no-cache-dir", "--disable-pip-version-check", "--target", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(pip), "install", *words, "--index-url", index.index_url, "app"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in tmp_path.glob("*.dist-info"))
    assert found == ["app-1.0.dist-info", "library-1.0.dist-info", "own-1.0.dist-info"]
