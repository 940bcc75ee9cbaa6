"""Which backups are kept; blobs and manifests that are whole or refused; the list of files of a database."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployer.protocol import Backup, ExitCode, Refusal
from deployer.server.backup import database
from deployer.server.backup.create import create
from deployer.server.backup.prune import Keep, kept, prune
from deployer.server.backup.repository import Damaged, Repository
from deployer.server.backup.restore import restore, verify
from deployer.server.boot.copying import check_whole
from deployer.server.secret_files import Private
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


@pytest.mark.usefixtures("fast")
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


CONTENTS = {"root/dev/+f/abc/one.whl": b"one" * 50_000, "root/pypi/+f/def/two.whl": b"two"}


def made_data(directory: Path) -> Path:
    """A server directory with what a backup reads of it, in devpi's own format."""
    from devpi_server.fileutil import dumps

    directory.mkdir()
    (directory / ".nodeinfo").write_text('{"uuid": "abc"}')
    (directory / ".serverversion").write_text("4.0.0")
    with closing(sqlite3.connect(directory / ".sqlite")) as connection:
        connection.execute("create table kv (key text not null primary key, keyname text, serial integer)")
        connection.execute("create table changelog (serial integer primary key, data blob not null)")
        indexes = {"dev": {"type": "stage"}, "pypi": {"type": "mirror"}}
        changes: list[tuple[str, str, dict[str, object]]] = [("root/.config", "USER", {"indexes": indexes})]
        for path, content in CONTENTS.items():
            file = directory / "+files" / path
            file.parent.mkdir(parents=True)
            file.write_bytes(content)
            hashes = {"sha256": hashlib.sha256(content).hexdigest()}
            changes.append((path, "STAGEFILE", {"last_modified": "now", "hashes": hashes, "project": "x"}))
        for number, (key, kind, value) in enumerate(changes):
            connection.execute("insert into kv values (?, ?, ?)", (key, kind, number))
            data = dumps(({key: (kind, -1, value)}, []))
            connection.execute("insert into changelog values (?, ?)", (number, data))
        connection.commit()
    return directory


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the disk has it matters after a loss of power only, and other tests write much."""
    monkeypatch.setattr("os.sync", lambda: None)


def test_what_can_not_be_copied_is_not_called_damaged(tmp_path: Path) -> None:
    data = made_data(tmp_path / "data")
    with pytest.raises(Refusal, match="can't copy") as caught:
        database.copy(data / ".sqlite", tmp_path / "absent/copy")
    assert caught.value.code == ExitCode.REFUSED
    (data / ".sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(Refusal, match="is damaged") as caught:
        create(data, Repository(tmp_path / "backups"), cache=True)
    assert caught.value.code == ExitCode.VERIFICATION
    assert Repository(tmp_path / "backups").all() == []


def restored(repository: Repository, target: Path) -> dict[str, bytes]:
    shutil.rmtree(target, ignore_errors=True)
    restore(repository, "latest", target, secrets={})
    files = target / "+files"
    return {str(path.relative_to(files)): path.read_bytes() for path in files.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("fast")
def test_a_backup_that_dies_at_any_step_leaves_the_earlier_ones_whole(tmp_path: Path) -> None:
    data, place = made_data(tmp_path / "data"), tmp_path / "backups"
    new = data / "+files/root/dev/+f/abc/one.whl"

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        content = new.read_bytes()
        create(data, Repository(place), cache=False)
        assert new.read_bytes() == content

    def check() -> None:
        for found in Repository(place).all():
            assert verify(Repository(place), found.name)["files"] == (1 if found.name.startswith("0001") else 2)
        create(data, Repository(place), cache=True)
        assert restored(Repository(place), tmp_path / "restored") == CONTENTS
        assert not list((place / "new").iterdir())

    assert sweep(lambda: create(data, Repository(place), cache=True), check, reset) > 20


@pytest.mark.usefixtures("fast")
def test_a_restore_that_dies_at_any_step_is_completed_by_the_next(tmp_path: Path) -> None:
    data, place, target = made_data(tmp_path / "data"), Repository(tmp_path / "backups"), tmp_path / "restored"
    create(data, place, cache=True)

    def check() -> None:
        if (target / ".nodeinfo").exists() and (target / ".deployer/moving").exists():
            with pytest.raises(Refusal, match="unfinished"):
                check_whole(Private.of(target))
        restore(Repository(place.directory), "latest", target, secrets={"secret": "s"})
        assert (target / ".deployer/secret").read_text() == "s"
        assert (target / ".deployer/root-password.reset").exists()
        with closing(sqlite3.connect(target / ".sqlite")) as connection:
            assert connection.execute("select count(*) from changelog").fetchone() == (3,)

    def reset() -> None:
        shutil.rmtree(target, ignore_errors=True)

    assert sweep(lambda: restore(place, "latest", target, secrets={"secret": "s"}), check, reset) > 20


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
