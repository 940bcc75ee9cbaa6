"""Which index served a project first, on the disk: plain names only, and nothing that a client made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.server.guard import owners as module
from deployer.server.guard.owners import Listing, Owners


def test_records_are_kept_replaced_and_forgotten(tmp_path: Path) -> None:
    owners = Owners(tmp_path / "owners")
    assert owners.first("root/dev", "demo") is None
    assert owners.projects("root/dev") == []
    owners.note("root/dev", "demo", "root/pypi")
    owners.note("root/dev", "other", "root/dev")
    owners.note("root/dev", "demo", "root/private")
    again = Owners(tmp_path / "owners")
    assert (again.first("root/dev", "demo"), again.first("root/other", "demo")) == ("root/private", None)
    assert again.projects("root/dev") == ["demo", "other"]
    again.forget("root/dev", ["demo", "unknown"])
    assert again.projects("root/dev") == ["other"]
    again.note("root/x", "demo", "root/pypi")
    again.keep_only({"root/dev"})
    assert (again.projects("root/x"), again.projects("root/dev")) == ([], ["other"])
    again.forget("root/dev")
    assert again.projects("root/dev") == []


def test_the_records_of_another_member_are_taken(tmp_path: Path) -> None:
    primary, replica = Owners(tmp_path / "primary"), Owners(tmp_path / "replica")
    noted: list[tuple[str, str, str]] = []
    replica.on_note = lambda *record: noted.append(record)
    assert primary.listing == replica.listing == Listing("")
    primary.note("root/dev", "same", "root/pypi")
    primary.note("root/dev", "other", "root/pypi")
    empty = replica.listing.name
    for project, owner in (("same", "root/pypi"), ("other", "root/own"), ("accepted", "root/own"), ("new", "root/own")):
        replica.note("root/dev", project, owner)
    replica.note("root/dev", "new", "root/own")
    assert (len(noted), replica.listing.name != empty) == (4, True)
    changed = replica.take(primary.listing.text, keeping=noted[3:])
    assert changed == {"other", "accepted"}
    assert (len(noted), replica.projects("root/dev")) == (4, ["new", "other", "same"])
    assert replica.first("root/dev", "other") == "root/pypi"
    assert replica.take(primary.listing.text, keeping=()) == {"new"}
    assert replica.listing == primary.listing


@pytest.mark.parametrize("text", ["root/pypi\n", "a  b\n", "a  ../b/c\n", "a  b//c\n", "  a/b/c\n", "a  a/b/c/d\n"])
def test_a_damaged_list_changes_nothing(tmp_path: Path, text: str) -> None:
    owners = Owners(tmp_path)
    owners.note("root/dev", "demo", "root/pypi")
    with pytest.raises(ValueError, match=r"^"):
        owners.take(f"root/own  root/dev/demo\n{text}", keeping=())
    assert owners.first("root/dev", "demo") == "root/pypi"


@pytest.mark.parametrize(
    ("index", "project"),
    [
        ("root/dev", "../demo"),
        ("root/dev", ".."),
        ("root/dev", ""),
        ("../dev", "demo"),
        ("root", "demo"),
        ("a/b/c", "d"),
    ],
)
def test_no_other_path_is_written(tmp_path: Path, index: str, project: str) -> None:
    owners = Owners(tmp_path / "owners")
    owners.note(index, project, "root/pypi")
    assert owners.first(index, project) is None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_and_a_damaged_record_keep_nobody_from_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError("no space")

    owners = Owners(tmp_path)
    (tmp_path / "root/dev").mkdir(parents=True)
    for content in (b"", b"\xff"):
        (tmp_path / "root/dev/demo").write_bytes(content)
        assert owners.first("root/dev", "demo") is None
    monkeypatch.setattr(module, "write_cached", full)
    owners.note("root/dev", "demo", "root/pypi")
    assert owners.first("root/dev", "demo") is None
