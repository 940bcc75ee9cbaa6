"""Which backups are kept; blobs and manifests that are whole or refused; the list of files of a database."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployer.protocol import Backup, ExitCode, Refusal
from deployer.server.backup.prune import Keep, kept, prune
from deployer.server.backup.repository import Damaged, Repository
from deployer.server.backup.restore import restore
from tests.death import sweep

FIRST = datetime(2024, 1, 1, 3, tzinfo=UTC)


def backup(number: int, at: datetime, **fields: object) -> Backup:
    named = Backup(name=f"{number:04}-{at:%Y%m%dT%H%M%SZ}", created=at.isoformat(), database=".sqlite")
    return replace(named, **fields)  # type: ignore[arg-type]


def daily(days: int) -> list[Backup]:
    return [backup(day + 1, FIRST + timedelta(days=day)) for day in range(days)]


@pytest.mark.parametrize(
    ("keep", "days"),
    [
        (Keep(), {399}),
        (Keep(last=3), {397, 398, 399}),
        (Keep(daily=2), {398, 399}),
        (Keep(weekly=2), {399, 398}),  # a Monday and the Sunday before
        (Keep(monthly=3), {399, 396, 365}),
        (Keep(yearly=5), {399, 365}),
        (Keep(last=2, yearly=2), {399, 398, 365}),
    ],
)
def test_rules_keep_the_newest_of_each_period(keep: Keep, days: set[int]) -> None:
    assert {int(name[:4]) - 1 for name in kept(daily(400), keep)} == days


def test_a_clock_that_goes_back_loses_no_order() -> None:
    backups = [backup(1, FIRST), backup(2, FIRST - timedelta(days=30))]
    assert kept(backups, Keep()) == {backups[1].name}


def filled(directory: Path, *contents: bytes) -> Repository:
    """A directory of backups, the n-th with the first n of ``contents``."""
    repository = Repository(directory)
    with repository.locked():
        for number in range(1, len(contents) + 1):
            repository.clear()
            digests = [repository.keep_bytes(content) for content in contents[:number]]
            listed = "".join(f"{digest}  root/dev/+f/{digest[:3]}/{digest}\n" for digest in digests)
            at = FIRST + timedelta(days=number)
            fields = {"pieces": (digests[0],), "files_sha256": repository.keep_bytes(listed.encode())}
            repository.complete(backup(number, at, **fields))
    return repository


def test_a_killed_prune_keeps_what_is_needed(tmp_path: Path) -> None:
    place = tmp_path / "backups"

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        filled(place, b"one", b"two", b"three")

    def check() -> None:
        repository = Repository(place)
        for found in repository.all():
            assert [repository.read(digest) for digest, _ in repository.files(found)]
            assert [repository.read(digest) for digest in found.pieces]
        prune(repository, Keep(last=1))
        assert [found.name[:4] for found in repository.all()] == ["0003"]
        assert len(repository.known()) == 4

    assert sweep(lambda: prune(Repository(place), Keep(last=1)), check, reset) > 8


def test_nothing_is_pruned_while_a_backup_can_not_be_read(tmp_path: Path) -> None:
    repository = filled(tmp_path, b"one", b"two")
    repository.blob(repository.all()[1].files_sha256).unlink()
    with pytest.raises(Refusal, match="nothing was removed") as caught:
        prune(repository, Keep(last=2))
    assert caught.value.code == ExitCode.VERIFICATION
    assert len(repository.all()) == 2


def test_two_runs_exclude_each_other(tmp_path: Path) -> None:
    with Repository(tmp_path).locked(shared=True), Repository(tmp_path).locked(shared=True):
        with pytest.raises(Refusal) as caught, Repository(tmp_path).locked():
            pass
        assert caught.value.code == ExitCode.LOCKED


def test_a_file_is_linked_or_copied_and_never_taken_damaged(tmp_path: Path) -> None:
    repository, source = Repository(tmp_path / "backups"), tmp_path / "file"
    source.write_bytes(b"content")
    with repository.locked():
        digest = repository.keep_file(source, {"md5": "9a0364b9e99bb480dd25e1f0284c8555"})
        assert repository.linked == 1
        repository.linking = False
        assert repository.keep_file(source, {}) == digest
        with pytest.raises(Damaged, match="sha256 mismatch"):
            repository.keep_file(source, {"sha256": "0" * 64})
        with pytest.raises(FileNotFoundError):
            repository.keep_file(tmp_path / "absent", {})
        (tmp_path / "link").symlink_to(source)
        with pytest.raises(OSError, match="symbolic"):
            repository.keep_file(tmp_path / "link", {})
    assert source.read_bytes() == b"content"


@pytest.mark.parametrize("path", ["../evil", "/evil", "a//b", "a/./b", ""])
def test_no_path_of_a_backup_leads_out_of_the_data(path: str, tmp_path: Path) -> None:
    repository = filled(tmp_path / "backups", b"one")
    with repository.locked():
        digest = repository.keep_bytes(b"one")
        listed = repository.keep_bytes(f"{digest}  {path}\n".encode())
        repository.complete(backup(2, FIRST, pieces=(digest,), files_sha256=listed))
    with pytest.raises(Refusal, match="invalid path") as caught:
        restore(repository, "latest", tmp_path / "data/inner", secrets={})
    assert caught.value.code == ExitCode.VERIFICATION
    assert sorted(one.name for one in tmp_path.iterdir()) == ["backups", "data"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("schema", 2),
        ("name", "../evil"),
        ("database", "../evil"),
        ("files_sha256", "../../evil"),
        ("pieces", ["x"]),
        ("small", {"../evil": "x"}),
        ("unknown", 1),
        ("created", "yesterday"),
        ("server_version", "\x1b[31m"),
        ("files", "1"),
        ("serial", True),
        ("profile", []),
        ("lost", [1]),
    ],
)
def test_a_manifest_that_is_not_ours_is_none(key: str, value: object, tmp_path: Path) -> None:
    (whole,) = (one.json for one in filled(tmp_path, b"one").all())
    assert Backup.parse(json.dumps(whole).encode()) is not None
    assert Backup.parse(json.dumps(whole | {key: value}).encode()) is None


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b'{"schema": 1}', b"[" * 100_000])
def test_damaged_manifests_are_none(text: bytes) -> None:
    assert Backup.parse(text) is None
