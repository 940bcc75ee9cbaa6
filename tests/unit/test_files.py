"""The one writer of files: mode, owner, symlinks and failures."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer.files import replacing
from tests.client_place import NOBODY, as_root


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(path: Path, content: bytes = b"new", **options: object) -> None:
    with replacing(path, **options) as stream:  # type: ignore[arg-type]
        stream.write(content)


@pytest.fixture
def umask() -> Iterator[None]:
    former = os.umask(0o027)
    yield
    os.umask(former)


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("exact", "wanted"), [(False, 0o640), (True, 0o644)])
def test_the_umask_counts_unless_the_mode_is_exact(tmp_path: Path, exact: bool, wanted: int) -> None:
    write(tmp_path / "file", mode=0o644, exact=exact)
    assert mode(tmp_path / "file") == wanted


def test_an_exact_mode_is_never_wider_in_between(tmp_path: Path) -> None:
    with replacing(tmp_path / "file", mode=0o644, exact=True):
        assert [mode(path) for path in tmp_path.iterdir()] == [0o600]


def test_a_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"theirs")
    link.symlink_to(target)
    write(link)
    assert (target.read_bytes(), link.read_bytes(), link.is_symlink()) == (b"theirs", b"new", False)


def test_a_symlink_in_the_temporary_files_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"theirs")
    (tmp_path / ".file.deployer").symlink_to(target)
    write(tmp_path / "file")
    assert target.read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "target"]


def test_an_exception_leaves_the_former_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"former")
    with pytest.raises(KeyboardInterrupt), replacing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"former" and list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_replaced_meanwhile_is_not_followed(tmp_path: Path) -> None:
    """As the owner of the directory may do while root writes into it."""
    real, moved, elsewhere = tmp_path / "real", tmp_path / "moved", tmp_path / "elsewhere"
    real.mkdir()
    elsewhere.mkdir()
    descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with replacing(Path("file"), mode=0o600, directory=descriptor) as stream:
            real.rename(moved)
            real.symlink_to(elsewhere)
            stream.write(b"new")
    finally:
        os.close(descriptor)
    assert (moved / "file").read_bytes() == b"new"
    assert list(elsewhere.iterdir()) == [] and [path.name for path in moved.iterdir()] == ["file"]


@as_root
def test_an_owner_is_given(tmp_path: Path) -> None:
    write(tmp_path / "file", owner=(NOBODY, NOBODY), mode=0o640)
    status = (tmp_path / "file").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (NOBODY, NOBODY, 0o640)


def test_another_group_gets_no_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refuse)
    write(tmp_path / "file", owner=(-1, os.getgid() + 1), mode=0o664)
    assert mode(tmp_path / "file") == 0o604


@pytest.mark.parametrize("durable", [True, False])
def test_what_is_not_to_last_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    write(tmp_path / "file", durable=durable)
    assert len(synced) == (2 if durable else 0)  # the file, and its directory
