"""What is in a client file's place, and whose it is: what is not ours to write is left alone."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.client_place import MINE, NOBODY, SETTINGS, Place, as_root, give, in_child, refused

# What is in its place


def test_a_dangling_symlink_gets_its_file(place: Place) -> None:
    (place.home / "dotfiles").mkdir()
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("../../dotfiles/pip.conf")
    before = place.tree()
    place.configure()
    assert place.conf.is_symlink() and (place.home / "dotfiles" / "pip.conf").is_file()
    place.undo()
    assert place.tree() == before


def test_a_symlink_into_nowhere_is_refused(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("/nonexistent/deployer/pip.conf")
    refused(place.configure)
    assert place.conf.is_symlink() and not Path("/nonexistent").exists()


def test_a_loop_of_symlinks_is_refused(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to("pip.conf")
    assert "loop" in refused(place.configure).message
    refused(place.undo)


@as_root
def test_a_dangling_symlink_into_the_folder_of_another_user_is_refused(place: Place) -> None:
    theirs = place.home.parent / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, -1)
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to(theirs / "pip.conf")
    refused(place.configure)
    assert list(theirs.iterdir()) == []


def test_a_directory_is_refused(place: Place) -> None:
    place.conf.mkdir(parents=True)
    assert "directory" in refused(place.configure).message
    refused(place.preview)


def test_a_file_where_a_folder_should_be_is_refused(place: Place) -> None:
    (place.home / ".config").write_text("x")
    refused(place.configure)
    assert (place.home / ".config").read_text() == "x"


def test_a_pipe_is_refused_and_not_waited_for(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    os.mkfifo(place.conf)
    refused(place.configure)
    assert place.url() == ""


def test_a_device_is_refused(place: Place) -> None:
    place.conf.parent.mkdir(parents=True)
    place.conf.symlink_to(os.devnull)
    refused(place.configure)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"[global]\n# caf\xe9\n", "not UTF-8 at byte 14"),
        (b"\xef\xbb\xbf[global]\n", "byte order mark"),
        (b"\xff\xfe[\x00", "not UTF-8 at byte 0"),
        (b"timeout = 3\n", "line 1"),
        (b"[global]\na = 1\na = 2\n", "duplicate"),
        (b"[global]\n" + b"# x\n" * 100_000, "larger"),
    ],
    ids=["latin-1", "bom", "utf-16", "no section", "twice", "large"],
)
def test_what_pip_cant_read_is_left_alone(place: Place, content: bytes, says: str) -> None:
    place.write(content)
    before = place.tree()
    for call in (place.configure, place.preview):
        error = refused(call)
        assert says in error.message and str(place.conf) in error.message
    assert place.tree() == before and place.records() == []


def test_undo_leaves_a_file_that_broke_since_alone(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.write_bytes(b"broken")
    refused(place.undo)
    assert place.conf.read_bytes() == b"broken" and place.records()


def test_a_damaged_backup_is_told(place: Place) -> None:
    place.write(MINE)
    place.configure()
    now = place.conf.read_bytes()
    for damage in ('{"schema": 1}', "", "[]", '{"schema": 99}'):
        place.records()[0].write_text(damage)
        refused(place.undo)
    assert place.conf.read_bytes() == now and place.url() == SETTINGS.index_url


# What belongs to others


@as_root
def test_the_home_of_another_user_is_left_alone(shared: Place) -> None:
    """As after a ``sudo`` that kept HOME."""
    give(shared.home, NOBODY)
    error = refused(shared.configure)
    assert f"uid {NOBODY}" in error.message and "sudo" in error.hint
    refused(shared.preview)
    assert shared.tree() == {} and not shared.state.exists()


@as_root
def test_the_home_of_root_as_another_user(shared: Place) -> None:
    """As ``su`` without a dash leaves it: HOME is root's, and here it even could be written."""
    shared.home.chmod(0o777)

    def configure() -> None:
        error = refused(shared.configure)
        assert "belongs to uid 0" in error.message and f"runs as uid {NOBODY}" in error.message
        raise error

    assert in_child(configure, uid=NOBODY) == 8
    assert shared.tree() == {}


@as_root
def test_a_file_of_another_user_is_left_alone(place: Place) -> None:
    os.chown(place.write(MINE), NOBODY, -1)
    refused(place.configure)
    assert place.conf.read_bytes() == MINE


@as_root
def test_the_state_folder_of_another_user_is_left_alone(shared: Place) -> None:
    shared.state.parent.mkdir()
    give(shared.state.parent, NOBODY)
    refused(shared.configure)
    assert shared.tree() == {} and list(shared.state.parent.iterdir()) == []


@as_root
def test_a_user_who_may_not_write(shared: Place) -> None:
    shared.write(MINE, 0o644)
    give(shared.home, NOBODY)
    shared.state.mkdir(parents=True)
    give(shared.state.parent, NOBODY)
    assert in_child(shared.configure, uid=NOBODY) == 0
    assert in_child(shared.undo, uid=NOBODY) == 0
    shared.conf.chmod(0o444)
    assert in_child(shared.configure, uid=NOBODY) == 8
    shared.conf.chmod(0o644)
    shared.conf.parent.chmod(0o555)
    assert in_child(shared.configure, uid=NOBODY) == 8
    assert in_child(shared.preview, uid=NOBODY) == 8
    shared.conf.parent.chmod(0o000)
    assert in_child(shared.configure, uid=NOBODY) == 8
    shared.conf.parent.chmod(0o755)
    shared.state.parent.chmod(0o555)
    shared.state.rmdir() if not any(shared.state.iterdir()) else shutil.rmtree(shared.state)
    assert in_child(shared.configure, uid=NOBODY) == 8
    assert shared.conf.read_bytes() == MINE
    assert in_child(lambda: shared.configure(scope="global"), uid=NOBODY) == 8


def test_a_file_that_nobody_may_write_is_left_alone(place: Place) -> None:
    place.write(MINE, 0o444)
    assert "read-only" in refused(place.configure).message
    assert place.conf.read_bytes() == MINE


@as_root
def test_the_group_of_a_file_is_kept(place: Place) -> None:
    os.chown(place.write(MINE, 0o640), -1, NOBODY)
    place.configure()
    assert (place.conf.stat().st_gid, stat.S_IMODE(place.conf.stat().st_mode)) == (NOBODY, 0o640)
