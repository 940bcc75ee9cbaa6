"""Which index served a project first, on the disk: plain names only, and nothing that a client made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.server.guard import owners as module
from deployer.server.guard.owners import Owners


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
