"""A client file is configured and put back: every byte and its mode, and never a secret in the open."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import pytest

from deployer.clients.client import ClientSettings
from tests.client_place import CANARY, MINE, OTHER, SETTINGS, Place


def test_a_new_file_and_its_folders_go_again(place: Place) -> None:
    change = place.configure()
    assert change.changed and change.path == place.conf and change.before is None
    assert place.url() == SETTINGS.index_url
    assert stat.S_IMODE((place.home / ".config").stat().st_mode) == 0o700
    assert place.undo().changed
    assert place.tree() == {}
    assert place.records() == []


def test_a_folder_that_somebody_uses_stays(place: Place) -> None:
    place.configure()
    (place.home / ".config" / "other").mkdir()
    place.undo()
    assert list(place.tree()) == [".config", ".config/other"]


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o640, 0o755])
def test_bytes_and_mode_come_back(place: Place, mode: int) -> None:
    place.write(MINE, mode)
    before = place.tree()
    place.configure()
    assert stat.S_IMODE(place.conf.stat().st_mode) == mode
    assert place.conf.read_bytes().startswith(b"# mine\r\n[global]\r\ntimeout = 60\r\n")
    place.undo()
    assert place.tree() == before


def test_mode_that_was_changed_comes_back_too(place: Place) -> None:
    place.write(MINE, 0o640)
    place.configure()
    place.conf.chmod(0o600)
    place.undo()
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o640


def test_undo_without_configure_is_nothing_to_do(place: Place) -> None:
    assert not place.undo().changed
    assert place.tree() == {} and not place.state.exists()


def test_edits_between_two_configures_stay(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.write_bytes(place.conf.read_bytes().replace(b"# mine", b"# edited"))
    place.configure(OTHER)
    place.undo()
    assert place.conf.read_bytes() == MINE.replace(b"# mine", b"# edited")


def test_an_address_of_somebody_else_is_what_comes_back(place: Place) -> None:
    place.configure()
    place.write(b"[global]\nindex-url = https://corp.example.com/simple\n")
    place.configure(OTHER)
    place.undo()
    assert place.conf.read_bytes() == b"[global]\nindex-url = https://corp.example.com/simple\n"


def test_others_edits_of_a_new_file_stay(place: Place) -> None:
    place.configure()
    place.conf.write_bytes(place.conf.read_bytes() + b"[install]\nuser = true\n")
    place.undo()
    assert place.conf.read_bytes() == b"[install]\nuser = true\n"


def test_a_file_that_was_removed(place: Place) -> None:
    place.write(MINE)
    place.configure()
    place.conf.unlink()
    change = place.undo()
    assert place.conf.read_bytes() == MINE and "removed" in change.warnings[0]


def test_a_new_file_that_was_removed(place: Place) -> None:
    place.configure()
    place.conf.unlink()
    place.undo()
    assert place.tree() == {} and place.records() == []


# What is secret stays secret


@pytest.fixture
def no_umask() -> Iterator[None]:
    former = os.umask(0)
    yield
    os.umask(former)


def test_private_under_any_umask(place: Place, no_umask: None) -> None:
    place.write(b"[global]\nindex-url = https://me:%s@corp.example.com/\n" % CANARY.encode(), 0o600)
    change = place.configure()
    assert CANARY not in repr(change)
    assert change.backup is not None
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o600
    for path in [place.state, *place.state.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


@pytest.mark.parametrize("former", [None, b"[global]\ntimeout = 3\n"])
def test_credentials_make_a_file_private(place: Place, no_umask: None, former: bytes | None) -> None:
    if former is not None:
        place.write(former, 0o644)
    place.configure(ClientSettings(index_url="https://me:secret@corp.example.com/simple/", timeout=5))
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o600


def test_a_new_file_without_credentials_is_not_private(place: Place, no_umask: None) -> None:
    place.configure()
    assert stat.S_IMODE(place.conf.stat().st_mode) == 0o644
