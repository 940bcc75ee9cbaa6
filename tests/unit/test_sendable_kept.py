"""What nginx may send while a server begins anew in its process, and after it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from deployer.server.guard.rules import Rules
from deployer.server.guard.sendable import Sendable

RULES = Rules(min_age=86_400)


def begun(tmp_path: Path, rules: Mapping[str, Rules], *indexes: str) -> Sendable:
    made = Sendable(tmp_path / "run", files=tmp_path / "+files", companions=tmp_path / "companions")
    made.configure(indexes, rules)
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where nginx looks for files of indexes: one without rules, and one with a file that was let in."""
    former = begun(tmp_path, {"root/guarded": RULES}, "root/pypi", "root/guarded")
    former.let_in("root/guarded", RULES, "+f/123/demo.whl", ())
    place = tmp_path / "run/files/root"
    assert (place / "pypi").readlink() == tmp_path / "+files/root/pypi"
    assert (place / "guarded/+f/123/demo.whl").is_symlink()
    return place


def test_files_of_an_index_without_rules_go_on(place: Path, tmp_path: Path) -> None:
    before = (place / "pypi").lstat().st_ino
    begun(tmp_path, {"root/guarded": RULES}, "root/pypi", "root/guarded")
    assert (place / "pypi").lstat().st_ino == before


def test_rules_are_asked_again(place: Path, tmp_path: Path) -> None:
    begun(tmp_path, {"root/guarded": RULES}, "root/pypi", "root/guarded")
    assert list((place / "guarded").iterdir()) == []


def test_an_index_that_has_got_rules_sends_nothing_by_itself(place: Path, tmp_path: Path) -> None:
    begun(tmp_path, {"root/pypi": RULES}, "root/pypi", "root/guarded")
    assert not (place / "pypi").is_symlink()
    assert list((place / "pypi").iterdir()) == []
    assert (place / "guarded").readlink() == tmp_path / "+files/root/guarded"


def test_an_index_that_is_gone_sends_nothing(place: Path, tmp_path: Path) -> None:
    begun(tmp_path, {}, "root/other")
    assert sorted(entry.name for entry in place.iterdir()) == ["other"]
