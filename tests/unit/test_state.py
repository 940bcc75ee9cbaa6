"""What is kept of a deployment on this host: private, whole or not there, and never guessed at."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deployer import files
from deployer.deployment import record
from deployer.deployment.lock import hold
from deployer.deployment.record import Applied, forget, read_applied, write_applied
from deployer.errors import ConflictError, Locked, ProfileError
from deployer.files import make_private, write_private
from deployer.host.state_dir import state_dir

NAME = "devpi"
APPLIED = Applied(
    profile_name="default",
    profile_ref="default",
    engine="docker",
    simple_url="http://127.0.0.1:3141/root/dev/+simple/",
    profile={"network": {"port": 3141}},
)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Where it is


def test_the_platform_says_where_unless_the_user_does(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert state_dir(NAME) == root / NAME
    monkeypatch.setenv("DEPLOYER_STATE_DIR", "")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert state_dir(NAME) == (Path("/elsewhere/deployer") if sys.platform == "linux" else state_dir(NAME)) / NAME
    assert not root.exists()


def test_a_relative_one_is_the_same_for_a_server_that_works_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEPLOYER_STATE_DIR", "kept")
    assert state_dir(NAME) == tmp_path / "kept" / NAME


def test_what_was_written_outlasts_a_loss_of_power(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_private(root / "password", "secret")
    assert synced == [str(root / ".password.deployer"), str(root)]  # the content before its name


# Who may read it


@pytest.mark.usefixtures("open_umask")
def test_every_directory_that_is_made_is_private(tmp_path: Path) -> None:
    made = make_private(tmp_path / "a" / "b" / "c")
    assert [mode(path) for path in (made, made.parent, made.parent.parent)] == [0o700] * 3


def test_what_was_there_is_closed_and_its_parents_are_left_alone(tmp_path: Path) -> None:
    parent, directory = tmp_path / "parent", tmp_path / "parent" / "open"
    directory.mkdir(parents=True)
    parent.chmod(0o755)
    directory.chmod(0o755)
    make_private(directory)
    assert (mode(parent), mode(directory)) == (0o755, 0o700)


@pytest.mark.usefixtures("open_umask")
def test_a_file_is_private_from_the_start_and_has_no_rest_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "root.password"
    for text in ("one\n", "päckchen 包\n"):
        write_private(path, text)
        assert path.read_text(encoding="utf-8") == text
        assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert [entry.name for entry in path.parent.iterdir()] == ["root.password"]


def test_a_file_of_others_is_replaced_and_not_written_into(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("theirs")
    link.hardlink_to(path)
    write_private(path, "ours")
    assert (path.read_text(), link.read_text(), mode(path)) == ("ours", "theirs", 0o600)


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_former_text(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private(path, "former")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, fails, refuse)
    with pytest.raises(ConflictError, match="No space left") as caught:
        write_private(path, "latter")
    assert str(path) in caught.value.message
    assert path.read_text() == "former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".file.deployer").write_text("half")
    write_private(tmp_path / "file", "whole")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("below", ["", "/below"])
def test_no_place_for_it_is_told(root: Path, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root.write_text("a file")
    monkeypatch.setenv("DEPLOYER_STATE_DIR", f"{root}{below}")
    with pytest.raises(ConflictError) as caught, hold(NAME):
        pass
    assert caught.value.exit_code == 5
    assert "DEPLOYER_STATE_DIR" in caught.value.hint
    assert root.read_text() == "a file"


# The lock


def test_one_at_a_time(root: Path) -> None:
    with hold(NAME):
        assert mode(root / NAME / "lock") == 0o600
        with pytest.raises(Locked, match="'devpi'") as caught, hold(NAME):
            pass
        assert (caught.value.exit_code, caught.value.retryable, "--wait" in caught.value.hint) == (75, True, True)
        with hold("another"):
            pass
    with hold(NAME):
        pass


def test_it_is_released_when_the_work_fails() -> None:
    with pytest.raises(ValueError), hold(NAME):
        raise ValueError
    with hold(NAME):
        pass


def test_who_waits_gets_it_when_it_is_free() -> None:
    script = (
        "import sys\nfrom deployer.deployment.lock import hold\n"
        "with hold('devpi'):\n    print('held', flush=True)\n    sys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(Locked), hold(NAME, wait=0.1):
            pass
        holder.stdin.write("\n")
        holder.stdin.flush()
        with hold(NAME, wait=60):
            pass


# The record


def test_what_was_applied_is_remembered_until_it_is_forgotten(root: Path) -> None:
    assert read_applied(NAME) is None
    write_applied(NAME, APPLIED)
    assert read_applied(NAME) == APPLIED
    assert mode(root / NAME / "applied.json") == 0o600
    write_applied(NAME, replace(APPLIED, engine="process"))
    assert read_applied(NAME) == replace(APPLIED, engine="process")
    for _ in range(2):
        forget(NAME)
        assert read_applied(NAME) is None


def test_what_is_on_record_is_not_written_again(root: Path) -> None:
    write_applied(NAME, APPLIED)
    path = root / NAME / "applied.json"
    before = path.stat().st_ino
    write_applied(NAME, APPLIED)
    assert path.stat().st_ino == before
    path.write_bytes(b"\xff")
    write_applied(NAME, APPLIED)
    assert read_applied(NAME) == APPLIED


def test_forgetting_keeps_the_lock_that_others_may_wait_for(root: Path) -> None:
    with hold(NAME):
        write_applied(NAME, APPLIED)
        forget(NAME)
        assert (root / NAME / "lock").exists()


def damaged(root: Path, text: str) -> ProfileError:
    make_private(root / NAME)
    (root / NAME / "applied.json").write_text(text)
    with pytest.raises(ProfileError) as caught:
        read_applied(NAME)
    assert str(root / NAME / "applied.json") in caught.value.message
    assert "rm " in caught.value.hint
    assert (root / NAME / "applied.json").read_text() == text
    return caught.value


@pytest.mark.parametrize("text", ["", "{", "[]", "42", "null", "{}", '{"schema": "1"}', '{"schema": 1}', "\x00" * 9])
def test_a_damaged_record_is_told_and_left_alone(root: Path, text: str) -> None:
    assert "damaged" in damaged(root, text).message


@pytest.mark.parametrize("overrides", ["", {}, ["x"], [{}], [{"key": "a", "value": 1}]])
def test_overrides_of_another_shape_are_damage(root: Path, overrides: object) -> None:
    write_applied(NAME, APPLIED)
    record = json.loads((root / NAME / "applied.json").read_text()) | {"overrides": overrides}
    assert "damaged" in damaged(root, json.dumps(record)).message


def test_the_record_of_a_newer_deployer_is_not_guessed_at(root: Path) -> None:
    write_applied(NAME, APPLIED)
    newer = json.loads((root / NAME / "applied.json").read_text()) | {"schema": record.SCHEMA + 1}
    error = damaged(root, json.dumps(newer))
    assert "newer" in error.message
    assert "upgrade" in error.hint


def test_what_this_version_does_not_know_of_does_no_harm(root: Path) -> None:
    write_applied(NAME, APPLIED)
    path = root / NAME / "applied.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "blue"}))
    assert read_applied(NAME) == APPLIED
