"""Where the data is: made as it must be, refused where it would harm or fail, and never lost."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.engines import need
from tests.integration.cli import Cli, Done

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="mounting and giving files away needs root")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    need("process")
    made = Cli(home=tmp_path, engine="process", upstream="http://127.0.0.1:9/simple/")
    try:
        yield made
    finally:
        made.clean()


@pytest.fixture(
    params=[pytest.param("docker", marks=pytest.mark.docker), pytest.param("podman", marks=pytest.mark.podman)]
)
def boxed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(home=tmp_path, engine=request.param, upstream="http://127.0.0.1:9/simple/")
    try:
        yield made
    finally:
        made.clean()


def up(cli: Cli, data: str, *words: str) -> Done:
    """``up`` on the data directory ``data``."""
    where = ["--engine", cli.engine, "--port", str(cli.port), "--upstream", cli.upstream]
    return cli.run("up", *where, f"--data={data}", "--no-pip", *words)


def refused(done: Done, code: int) -> bool:
    """One line of cause and one of cure, and the exit code."""
    told = [line.split()[0] for line in done.err.splitlines() if line[:1] != " "]
    return done.code == code and told.count("error") == 1 and told.count("hint") == 1


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def nothing_runs(cli: Cli) -> bool:
    return bool(cli.run("status", "--json", "--engine", cli.engine).data["state"] == "absent")


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    where.mkdir(exist_ok=True)
    subprocess.run(["mount", *options, str(where)], check=True, capture_output=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


# What is made


@pytest.mark.server
@pytest.mark.parametrize("name", ["plain", "with space", 'it\'s "quoted"', "päckchen-包", "a/b/c"])
def test_a_directory_that_is_missing_is_made(cli: Cli, name: str) -> None:
    path = cli.home / name
    done = up(cli, str(path))
    assert done.code == 0, done.err
    assert mode(path) == 0o700
    assert (path / ".nodeinfo").exists()
    assert cli.run("down", "--purge", "--yes").code == 0
    assert not path.exists()


@pytest.mark.parametrize("name", ["with space", 'it\'s, "quoted"', "päckchen-包"])
def test_a_container_gets_any_directory(boxed: Cli, name: str) -> None:
    path = boxed.home / name
    done = up(boxed, str(path))
    assert done.code == 0, done.err
    assert (mode(path), path.stat().st_uid) == (0o700, 3141 if os.geteuid() == 0 else os.geteuid())
    assert (path / ".nodeinfo").exists()


@pytest.mark.server
def test_a_home_is_that_of_the_user(cli: Cli) -> None:
    assert up(cli, "~/mine").code == 0
    assert (cli.home / "mine" / ".nodeinfo").exists()


@pytest.mark.server
def test_a_directory_that_others_could_read_is_closed(cli: Cli) -> None:
    path = cli.home / "data"
    path.mkdir()
    path.chmod(0o755)
    assert up(cli, str(path)).code == 0
    assert mode(path) == 0o700


# What is refused


@pytest.mark.server
@pytest.mark.parametrize("path", ["/", "{home}", "/proc/deployer", "/sys/deployer", "/dev/deployer", "/etc"])
def test_no_place_for_data(cli: Cli, path: str) -> None:
    done = up(cli, path.format(home=cli.home))
    assert refused(done, 11), done.err
    assert nothing_runs(cli)


@pytest.mark.server
@pytest.mark.parametrize("path", ["relative/path", "/srv/missing/../..", "", "volume:", "nothing\x01printable"])
def test_no_path_at_all(cli: Cli, path: str) -> None:
    done = cli.run("up", "--engine", "process", "--set", f"data={path}")
    assert done.code == 3, done.err
    assert nothing_runs(cli)


@pytest.mark.server
def test_a_link_is_not_followed(cli: Cli) -> None:
    (cli.home / "elsewhere").mkdir()
    (cli.home / "link").symlink_to(cli.home / "elsewhere")
    done = up(cli, str(cli.home / "link"))
    assert refused(done, 11), done.err
    assert list((cli.home / "elsewhere").iterdir()) == []


@pytest.mark.server
def test_files_of_others_are_left_alone(cli: Cli) -> None:
    path = cli.home / "photos"
    path.mkdir()
    (path / "me.jpg").write_bytes(b"1")
    before = mode(path)
    done = up(cli, str(path))
    assert refused(done, 11), done.err
    assert [entry.name for entry in path.iterdir()] == ["me.jpg"]
    assert mode(path) == before


@pytest.mark.server
def test_a_file_is_no_directory(cli: Cli) -> None:
    (cli.home / "file").write_text("mine")
    done = up(cli, str(cli.home / "file"))
    assert refused(done, 5), done.err
    assert (cli.home / "file").read_text() == "mine"


@ROOT_ONLY
def test_files_are_never_given_away(boxed: Cli) -> None:
    """A server directory of root's own: the container runs as somebody else, and root is told how to hand it over."""
    process = Cli(home=boxed.home, engine="process", name=boxed.name + "-p", upstream=boxed.upstream)
    data = boxed.home / "data"
    assert up(process, str(data)).code == 0
    assert process.run("down").code == 0
    done = up(boxed, str(data), "--set", "image.user=3141:3141")
    assert refused(done, 5), done.err
    assert f"chown -R 3141:3141 {data}" in done.err
    assert {path.stat().st_uid for path in [data, *data.rglob("*")]} == {0}
    shutil.rmtree(data)


@pytest.mark.server
@ROOT_ONLY
def test_a_file_system_that_cannot_be_written(cli: Cli) -> None:
    path = cli.home / "data"
    path.mkdir()
    with mounted(path, "--bind", str(path)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(path)], check=True)
        done = up(cli, str(path))
        assert refused(done, 11), done.err
        assert nothing_runs(cli)


@pytest.mark.server
@ROOT_ONLY
@pytest.mark.parametrize("limit", ["size=1m", "size=200m,nr_inodes=30"])
def test_too_little_room_to_start(cli: Cli, limit: str) -> None:
    with mounted(cli.home / "small", "-t", "tmpfs", "-o", limit, "tmpfs"):
        done = up(cli, str(cli.home / "small" / "data"))
        assert refused(done, 11), done.err
        assert list((cli.home / "small").iterdir()) == []
        assert nothing_runs(cli)


# What happens later


@pytest.mark.server
@ROOT_ONLY
def test_a_disk_that_fills_up_is_told_and_nothing_is_lost(cli: Cli) -> None:
    with mounted(cli.home / "small", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as small:
        assert up(cli, str(small / "data"), "--set", "server.min_free=1m").code == 0
        uuid = cli.run("status", "--json").data["server_uuid"]
        with pytest.raises(OSError, match="No space left"), (small / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"0" * 4096)
        deadline = time.monotonic() + 180
        while (full := cli.run("status", "--json")).code == 0:  # the last answer holds for some seconds
            assert time.monotonic() < deadline
        assert (full.code, full.data["ready"]) == (6, False)
        assert "write" in full.envelope["error"]["message"]
        # It still answers, so who only looks at that is told that all is well.
        assert httpx.get(f"{cli.url}/+api", trust_env=False, timeout=180).status_code == 200

        again = cli.run("restart", "--timeout", "20")
        # What a stop clears away may be room enough; then it has to be ready indeed.
        assert again.code in (0, 6, 11), again.err
        assert again.code or "ready" in again.err
        (small / "ballast").unlink()
        healed = up(cli, str(small / "data"), "--set", "server.min_free=1m")
        assert healed.code == 0, healed.err
        assert cli.run("status", "--json").data["server_uuid"] == uuid
        assert [path.name for path in (small / "data").glob("-*")] == []
        assert cli.run("down").code == 0


def test_a_volume_is_kept_until_it_is_purged(boxed: Cli) -> None:
    volume = f"{boxed.name}-data"
    exists = [boxed.engine, "volume", "inspect", volume]
    done = up(boxed, f"volume:{volume}")
    assert done.code == 0, done.err
    uuid = boxed.run("status", "--json").data["server_uuid"]
    assert boxed.run("down").code == 0
    assert subprocess.run(exists, capture_output=True, check=False).returncode == 0
    assert up(boxed, f"volume:{volume}").code == 0
    assert boxed.run("status", "--json").data["server_uuid"] == uuid
    assert boxed.run("down", "--purge", "--yes").code == 0
    assert subprocess.run(exists, capture_output=True, check=False).returncode != 0
