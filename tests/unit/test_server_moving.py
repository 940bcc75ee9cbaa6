"""Copies of a server directory: whole, or known not to be."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from deployer.protocol import ExitCode, Refusal
from deployer.server.__main__ import main
from deployer.server.boot import copying, prepare
from deployer.server.boot.prepare import locked
from deployer.server.secret_files import Private
from tests.forked import forked


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "old"
    (path / "+files/root/dev/+f/abc").mkdir(parents=True)
    (path / ".nodeinfo").write_text('{"uuid": "abc"}')
    (path / ".sqlite").write_bytes(os.urandom(70_000))
    (path / "+files/root/dev/+f/abc/demo 1.whl").write_bytes(os.urandom(3_000_000))
    (path / "+files/root/dev/+f/abc/empty").touch()
    (path / "lost+found").mkdir()
    with locked(path) as private:
        private.root_password.write_text("s3cr3t\n")
    for file in path.rglob("*"):
        file.chmod(0o700 if file.is_dir() else 0o600)
    return path


def tree(path: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, time and digest of every file, by its path; locks and our own marks left out."""
    return {
        str(file.relative_to(path)): (
            file.stat().st_mode,
            file.stat().st_mtime_ns,
            hashlib.sha256(file.read_bytes()).hexdigest(),
        )
        for file in path.rglob("*")
        if file.is_file() and file.name not in {"lock", "moved"}
    }


def refused(source: Path, target: Path) -> Refusal:
    with pytest.raises(Refusal) as caught:
        copying.copy(source, target)
    return caught.value


def test_a_copy_is_whole(source: Path, tmp_path: Path) -> None:
    before = tree(source)
    copied = copying.copy(source, tmp_path / "new/place")
    assert tree(tmp_path / "new/place") == before == tree(source)
    assert (copied.files, copied.bytes) == (5, sum((source / name).stat().st_size for name in before))
    assert copying.copy(source, tmp_path / "other").sha256 == copied.sha256


@pytest.mark.parametrize("name", ["+files/root/dev/+f/abc/demo 1.whl", ".sqlite"])
def test_what_was_written_is_read_again(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new"
    sync = os.sync

    def rot() -> None:
        data = bytearray((target / name).read_bytes())
        data[-1] ^= 1
        (target / name).write_bytes(data)
        sync()

    monkeypatch.setattr(os, "sync", rot)
    found = refused(source, target)
    assert (found.code, str(target / name) in found.message) == (ExitCode.VERIFICATION, True)
    with pytest.raises(Refusal, match="unfinished copy"):
        copying.check_whole(Private.of(target))


def test_a_copy_that_was_not_used_is_made_anew(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    copying.copy(source, target)
    (target / "old-file").touch()
    (source / "+files/later").write_text("later")
    copying.copy(source, target)
    assert tree(target) == tree(source)


def test_one_that_was_used_is_not(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    copying.copy(source, target)
    copying.check_whole(Private.of(target))
    before = tree(target)
    assert refused(source, target).code == ExitCode.REFUSED
    assert tree(target) == before


@pytest.mark.parametrize("made", ["file", ".sqlite", ".deployer/secret"])
def test_nothing_is_written_over(made: str, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "new"
    (target / made).parent.mkdir(parents=True)
    (target / made).write_text("mine")
    assert "is not empty" in refused(source, target).message
    assert (target / made).read_text() == "mine"


def test_places_that_are_no_two(source: Path, tmp_path: Path) -> None:
    for target in (source, source / "below", tmp_path):
        assert "overlap" in refused(source, target).message
    assert "no data of devpi" in refused(tmp_path / "nothing", tmp_path / "new").message
    assert not (tmp_path / "new").exists()


def test_a_server_that_runs_on_it_forbids_it(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "LOCK_PATIENCE", 0.1)
    words = ["deployer.server", "copy", "--source", str(source), "--target", str(tmp_path / "new")]
    with locked(source):
        done = forked(lambda: sys.exit(main()), words=words)
    assert (done.returncode, "another server runs" in done.stderr) == (5, True)


def test_a_socket_stays_where_it_is(source: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / ".deployer/s"))
        copying.copy(source, tmp_path / "new")
    assert not (tmp_path / "new/.deployer/s").exists()


def test_a_kill_at_any_moment_is_known_to_the_next(source: Path, tmp_path: Path) -> None:
    target, killed = tmp_path / "new", 0

    def dying(last: int) -> None:
        """Copy, and die at the write of this number."""
        seen = count(1)

        def hear(event: str, args: tuple[Any, ...]) -> None:
            written = event == "open" and args[2] & 3
            if (written or event in {"os.mkdir", "os.rename", "os.remove", "shutil.rmtree"}) and next(seen) == last:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hear)
        copying.copy(source, target)

    for number in range(1, 100):
        code = forked(partial(dying, number)).returncode
        if code == 0:
            break
        assert code == -signal.SIGKILL
        killed += 1
        if (target / ".nodeinfo").exists() and not (target / ".deployer/moved").exists():
            with pytest.raises(Refusal, match="unfinished copy"):
                copying.check_whole(Private.of(target))
    assert killed > 8
    assert tree(target) == tree(source)


def test_what_it_says_is_json(source: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "deployer.server", "copy", "--source", source, "--target", tmp_path / "new"]
    said = json.loads(subprocess.check_output(words))
    assert (said["files"], len(said["sha256"])) == (5, 64)
