"""Real servers on data that is gone, of others, or in doubt: nothing is deleted or begun anew unasked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.client_place import NOBODY, as_root, give
from tests.engines import need
from tests.integration.cli import Cli, Done

ENGINES = [
    pytest.param("process", marks=pytest.mark.server),
    pytest.param("docker", marks=pytest.mark.docker),
]


@pytest.fixture(scope="module", params=ENGINES)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A deployment that the tests share; each leaves it ready on its data."""
    need(request.param)
    home = tmp_path_factory.mktemp("kept")
    home.chmod(0o755)
    cli = Cli(home=home, engine=request.param, network="host", upstream="http://127.0.0.1:9/simple/")
    try:
        done = cli.up("--no-pip")
        assert done.code == 0, done.err
        yield cli
    finally:
        cli.clean()


def uuid(cli: Cli) -> str:
    """The identity of the running server; it is ready."""
    done = cli.run("status", "--json")
    assert done.code == 0, done.out
    return str(done.data["server_uuid"])


def refused(done: Done, code: int, *words: str) -> None:
    error = next(line for line in done.err.splitlines() if line.startswith("error"))
    assert (done.code, [word for word in words if word not in error]) == (code, []), done.err
    assert "hint" in done.err


@contextmanager
def away(path: Path, *, empty: bool = False) -> Iterator[None]:
    """The directory is not there, or is empty as the mount point of a disk that is not mounted."""
    aside = path.with_name(f"{path.name}.away")
    path.rename(aside)
    if empty:
        path.mkdir(mode=0o700)
    try:
        yield
    finally:
        if path.exists():
            shutil.rmtree(path)
        aside.rename(path)


def former(cli: Cli, name: str) -> None:
    """The record of a deployment that had its data where ``cli`` has it now."""
    record = cli.home / "state" / name / "applied.json"
    record.parent.mkdir()
    shutil.copy(cli.home / "state" / cli.name / "applied.json", record)


def test_a_former_deployment_does_not_take_the_data_along(served: Cli) -> None:
    before = uuid(served)
    former(served, "bold")
    refused(served.run("down", "--name", "bold", "--purge", "--yes"), 5, "belongs to the deployment", served.name)
    (served.data / ".deployer/used-by").unlink()  # of an older deployer: the running server has the directory
    refused(served.run("down", "--name", "bold", "--purge", "--yes"), 5, f"uses {served.data}")
    assert served.up("--no-pip").code == 0
    assert (served.data / ".deployer/used-by").exists()
    assert uuid(served) == before


def test_a_renamed_container_keeps_its_data(served: Cli) -> None:
    if served.engine == "process":
        pytest.skip("a process has no name on an engine")
    before = uuid(served)
    subprocess.run(["docker", "rename", served.name, f"{served.name}-x"], check=True)
    try:
        done = served.run("down", "--purge", "--yes")
        refused(done, 5, f"{served.name}-x on docker uses")
        assert f"docker rename {served.name}-x {served.name}" in done.err
    finally:
        subprocess.run(["docker", "rename", f"{served.name}-x", served.name], check=True)
    assert uuid(served) == before


def test_data_that_vanishes_under_a_server_is_told_at_once(served: Cli) -> None:
    before = uuid(served)
    with away(served.data):
        status = served.run("status")
        refused(status, 6, "is gone from", str(served.data))
        refused(served.up("--no-pip"), 5, "is gone from", before)
        refused(served.run("restart"), 5, "is gone from", before)
        refused(served.run("move", "--data", str(served.home / "elsewhere")), 5, "is gone from", before)
        doctor = served.run("doctor")
        assert doctor.code == 9 and "is gone from" in doctor.err + doctor.out
        assert not served.data.exists()
    assert uuid(served) == before


def test_a_disk_that_is_not_mounted_is_no_new_index(served: Cli) -> None:
    before = uuid(served)
    assert served.run("stop").code == 0
    with away(served.data, empty=True):
        for words in (("start",), served.up_words("--no-pip"), ("move", "--data", str(served.home / "elsewhere"))):
            refused(served.run(*words), 5, "is gone from", before)
            assert list(served.data.iterdir()) == []
    assert served.run("start").code == 0
    assert uuid(served) == before


def test_a_new_index_is_insisted_on_and_the_old_one_comes_back(served: Cli) -> None:
    before = uuid(served)
    with away(served.data):
        assert served.up("--no-pip", "--new-data").code == 0
        assert uuid(served) != before
        assert served.run("stop").code == 0
    refused(served.run("start"), 5, f"holds the index {before}")
    refused(served.run("down", "--purge", "--yes"), 5, f"holds the data of server {before}")
    assert served.up("--no-pip", "--new-data").code == 0
    assert uuid(served) == before
    assert served.up("--no-pip", "--new-data").code == 0  # it deletes nothing
    assert uuid(served) == before


def test_a_damaged_record_is_told_and_harms_nobody(served: Cli) -> None:
    before = uuid(served)
    record = served.home / "state" / served.name / "applied.json"
    content = record.read_text()
    for damaged in ("{", json.dumps(json.loads(content) | {"data_source": 7}), "[" * 100_000):
        record.write_text(damaged)
        for words in (("status",), ("restart",), ("down", "--purge", "--yes")):
            refused(served.run(*words), 3, "is damaged")
    record.write_text(content)
    assert uuid(served) == before


@pytest.mark.server
@as_root
def test_root_leaves_nothing_in_the_home_of_a_user(tmp_path: Path) -> None:
    """sudo that keeps HOME: each verb is refused before it writes, and names the cure."""
    need("process")
    give(tmp_path, NOBODY)
    cli = Cli(home=tmp_path, engine="process", extra={"DEPLOYER_STATE_DIR": ""})
    for words in (
        ("up", "--engine", "process", "--port", "0"),
        ("restart",),
        ("down", "--purge", "--yes"),
        ("status",),
    ):
        done = cli.run(*words)
        refused(done, 5, "state directory", "which belongs to")
        assert "sudo, add -H" in done.err
    assert [path for path in tmp_path.rglob("*") if path.stat().st_uid == os.geteuid()] == []
