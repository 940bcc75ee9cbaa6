"""A deployment that moves to another place takes everything along, or stays where it was."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.integration.test_crash import Point, crash, effects, points

ROOT = Path(__file__).resolve().parents[2]
PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
PODMAN = pytest.param("podman", marks=pytest.mark.podman)


@pytest.fixture(params=[PROCESS, DOCKER, PODMAN])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(
        home=tmp_path,
        engine=request.param,
        upstream="http://127.0.0.1:9/simple/",
        extra={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    try:
        yield made
    finally:
        made.clean()


def words(cli: Cli, data: str) -> tuple[str, ...]:
    up = list(cli.up_words())
    up[up.index("--data") + 1] = data
    return ("move", *up[1:])


def served(cli: Cli) -> tuple[str, str, list[str]]:
    data = cli.run("status", "--json", "--engine", cli.engine).data
    assert data["ready"], data
    return data["server_uuid"], data["data_dir"], data["indexes"]


def digests(data: Path) -> dict[str, str]:
    """Of what a server does not write anew at every start."""
    return {
        str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in data.rglob("*")
        if (path.is_file() and "+files" in path.parts) or path.name in {"root-password", "secret", "proof-key"}
    }


def test_everything_comes_along(cli: Cli) -> None:
    assert cli.up("--no-pip", "--set", "users.carol={}").code == 0
    uuid, _, indexes = served(cli)
    before = digests(cli.data)
    assert before
    new = cli.home / "new/place"
    moved = cli.run(*words(cli, str(new)), "--set", "users.carol={}", "--json")
    assert moved.code == 0, moved.out
    assert (moved.data["from"], moved.data["to"]) == (str(cli.data), str(new))
    assert served(cli) == (uuid, str(new), indexes)
    assert digests(new) == before == digests(cli.data)
    again = cli.run(*words(cli, str(new)), "--set", "users.carol={}", "--json")
    assert again.data["files"] == 0
    # The old place can't be gone back to by accident, nor taken for the deployment's.
    stale = cli.run(*cli.up_words("--no-pip"))
    assert (stale.code, f"--data {new}" in stale.err) == (11, True)
    assert cli.run("down", "--purge", "--yes", "--engine", cli.engine).code == 0
    assert (new.exists(), cli.data.exists()) == (False, True)
    shutil.rmtree(cli.data)


def test_the_old_data_goes_when_told(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    uuid = served(cli)[0]
    moved = cli.run(*words(cli, str(cli.home / "new")), "--delete-old")
    assert moved.code == 0, moved.err
    assert (cli.data.exists(), served(cli)[0]) == (False, uuid)


def test_what_is_refused_stops_nothing(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    before = served(cli)
    started = cli.run("status", "--json").data["started_at"]
    (cli.home / "taken").mkdir()
    (cli.home / "taken/file").write_text("mine")
    for place, code in ((str(cli.home / "taken"), 11), ("/", 11), ("/proc/x", 11), ("relative", 3)):
        assert cli.run(*words(cli, place)).code == code
    assert cli.run("move", "--engine", cli.engine).code == 2
    assert served(cli) == before
    assert cli.run("status", "--json").data["started_at"] == started


def test_a_copy_that_fails_leaves_the_server_where_it_was(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    before = served(cli)
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = cli.home / "small"
    small.mkdir()
    blob = cli.data / "+files/blob"
    blob.parent.mkdir(exist_ok=True)
    blob.write_bytes(bytes(6 << 20))
    shutil.copystat(cli.data / ".nodeinfo", blob)
    os.chown(blob, cli.data.stat().st_uid, cli.data.stat().st_gid)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", small], check=True)
    try:
        failed = cli.run(*words(cli, str(small / "data")), "--set", "server.min_free=1m")
        assert (failed.code, "MiB" in failed.err) == (11, True), failed.err
        assert f"rollback  {cli.name} runs again on the old data at {cli.url}" in failed.err.splitlines()
        assert served(cli) == before
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    "cli", [PROCESS, pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.endurance])], indirect=True
)
def test_a_kill_at_any_step_loses_nothing(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    uuid = served(cli)[0]
    before = digests(cli.data)
    places = [cli.data, cli.home / "new"]
    moments = points(effects(cli, words(cli, str(places[1]))))
    shutil.rmtree(places[0])
    codes = []
    for moment in moments[:: max(1, len(moments) // 10)]:
        here = Path(served(cli)[1])
        there = places[0] if here == places[1] else places[1]
        shutil.rmtree(there, ignore_errors=True)
        moment = Point(moment.effect.replace(str(places[1]), str(there)), moment.count)
        code, said = crash(cli, moment, "SIGKILL", words(cli, str(there)))
        assert code in (0, -signal.SIGKILL), (moment, said)
        codes.append(code)
        healed = cli.run(*words(cli, str(there)))
        assert healed.code == 0, (moment, healed.err)
        assert served(cli)[:2] == (uuid, str(there)), moment
        assert digests(there) == before
    assert codes.count(-signal.SIGKILL) >= 5


@pytest.mark.parametrize("cli", [DOCKER, PODMAN], indirect=True)
@pytest.mark.endurance_of("podman")
def test_from_a_directory_to_a_volume_and_back(cli: Cli) -> None:
    volume = f"volume:{cli.name}-data"
    assert cli.up("--no-pip").code == 0
    uuid = served(cli)[0]
    out = cli.run(*words(cli, volume), "--delete-old")
    assert out.code == 0, out.err
    assert served(cli)[0] == uuid
    assert not cli.data.exists()
    back = cli.run(*words(cli, str(cli.data)), "--delete-old")
    assert back.code == 0, back.err
    assert served(cli)[:2] == (uuid, str(cli.data))
    listed = subprocess.check_output([cli.engine, "volume", "ls", "--quiet"], text=True).split()
    assert volume.removeprefix("volume:") not in listed
