"""Whose files are believed: state and profiles that no other user could have written or replaced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer import ownership
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError, ProfileError, Refused
from deployer.host.state_dir import state_dir, state_root
from deployer.ownership import require_own, user_name
from deployer.profile.load.files import available, user_profiles
from tests.client_place import NOBODY, as_root

OTHER = NOBODY - 1


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home" / "state"
    path.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(path))
    return path


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "profiles"
    path.mkdir(parents=True, mode=0o700)
    (path / "team.yaml").write_text("extends: default\n")
    monkeypatch.setenv("DEPLOYER_CONFIG_DIR", str(tmp_path / "config"))
    return path


@pytest.fixture
def outer(tmp_path: Path) -> Iterator[Path]:
    """The directory that the others are in, as it was before."""
    mode = tmp_path.stat().st_mode
    yield tmp_path
    os.chown(tmp_path, os.geteuid(), -1)
    tmp_path.chmod(mode)


def test_what_is_our_own_is_believed(root: Path, profiles: Path) -> None:
    assert state_root() == root
    assert user_profiles() == profiles
    assert "team" in [profile.name for profile in available()]


def test_what_is_absent_is_no_danger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path / "none/state"))
    monkeypatch.setenv("DEPLOYER_CONFIG_DIR", str(tmp_path / "none"))
    assert read_applied("devpi") is None
    assert available()


@as_root
def test_state_of_another_user_is_not_believed(root: Path) -> None:
    os.chown(root, OTHER, -1)
    with pytest.raises(ConflictError, match=r"state directory .* belongs to") as caught:
        state_root()
    assert "with sudo, add -H; or set DEPLOYER_STATE_DIR" in caught.value.hint


@as_root
@pytest.mark.parametrize("there", [True, False], ids=["there", "absent"])
def test_nor_is_state_in_the_home_of_another_user(root: Path, there: bool) -> None:
    """Who owns the home can replace what is in it at any moment; and root would leave files of its own there."""
    os.chown(root.parent, OTHER, -1)
    if not there:
        root.rmdir()
    with pytest.raises(ConflictError, match="home, which belongs to"):
        state_root()


@as_root
def test_nor_is_state_that_a_link_in_the_home_of_another_user_leads_to(root: Path, outer: Path) -> None:
    link = outer / "other" / "state"
    link.parent.mkdir()
    link.symlink_to(root)
    os.chown(link.parent, OTHER, -1)
    with pytest.raises(ConflictError, match="other, which belongs to"):
        require_own(link, "state directory")


@as_root
def test_nor_is_state_that_a_link_of_our_own_leads_to(root: Path, outer: Path) -> None:
    link = outer / "link"
    link.symlink_to(root)
    os.chown(root.parent, OTHER, -1)
    with pytest.raises(ConflictError, match="home, which belongs to"):
        require_own(link, "state directory")


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o770])
def test_state_that_others_may_write_is_refused(root: Path, mode: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_is_private_group", lambda *_: False)
    root.chmod(mode)
    with pytest.raises(Refused, match="other users may write") as caught:
        state_dir("devpi")
    assert caught.value.hint.endswith(f"chmod go-w {root}")


def test_state_that_others_may_replace_is_refused(root: Path) -> None:
    root.parent.chmod(0o777)
    with pytest.raises(Refused, match="other users may replace"):
        state_root()
    root.parent.chmod(0o1777)  # as /tmp: only who owns an entry may rename it
    assert state_root() == root


def test_a_group_of_our_own_is_not_others(root: Path) -> None:
    root.chmod(0o770)
    os.chown(root, -1, os.getgid())
    assert ownership._is_private_group(os.getgid(), os.geteuid()) is (os.geteuid() == 0)
    if os.geteuid() == 0:
        assert state_root() == root
        os.chown(root, -1, OTHER)  # a group without a name
        with pytest.raises(Refused):
            state_root()


@as_root
def test_profiles_of_another_user_are_not_believed(profiles: Path) -> None:
    os.chown(profiles, OTHER, -1)
    with pytest.raises(ConflictError, match="profile directory") as caught:
        available()
    assert "DEPLOYER_CONFIG_DIR" in caught.value.hint


def test_a_profile_that_others_may_write_is_refused(profiles: Path) -> None:
    profiles.chmod(0o777)
    with pytest.raises(Refused, match="other users may write"):
        user_profiles()


@as_root
def test_a_record_that_cannot_be_read_is_not_called_damaged(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "devpi").mkdir()
    (root / "devpi/applied.json").mkdir()  # root may read everything else
    with pytest.raises(ConflictError, match="can't be read") as caught:
        read_applied("devpi")
    assert not isinstance(caught.value, ProfileError)
    assert "chown" in caught.value.hint


def test_the_name_of_a_user() -> None:
    assert user_name(0) == "root"
    assert user_name(4_000_000_000) == "uid 4000000000"
    assert user_name(1 << 70) == f"uid {1 << 70}"
