"""Which backups are kept; blobs and manifests that are whole or refused; the list of files of a database."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from deployer.protocol import Backup, ExitCode, Refusal
from deployer.server.backup import database, owners
from deployer.server.backup.check import check
from deployer.server.backup.compact import compact
from deployer.server.backup.create import create
from deployer.server.backup.prune import Keep, kept, prune
from deployer.server.backup.repository import Damaged, Repository, open_file
from deployer.server.backup.restore import restore, verify
from deployer.server.boot.copying import check_whole
from deployer.server.devpi import stored
from deployer.server.devpi.stored import Stored
from deployer.server.secret_files import Private
from tests.death import sweep

FIRST = datetime(2024, 1, 1, 3, tzinfo=UTC)


class Stopped(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Stopped:
        return cls(2024, 1, 1, tzinfo=tz)


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
    monkeypatch.setattr("deployer.server.backup.repository.sync_file_system", lambda _directory: None)


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
        ("owners_sha256", "../../evil"),
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


def bank(path: Path, *, journal: str = "delete") -> None:
    """A database in which every commit keeps one sum."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"pragma journal_mode = {journal}")
        connection.execute("create table account (id integer primary key, held integer, pad blob)")
        connection.execute("begin")
        connection.executemany("insert into account values (?, 100, ?)", ((one, b"x" * 900) for one in range(4000)))
        connection.execute("commit")


def held(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        return int(connection.execute("select sum(held) from account").fetchone()[0])


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_copy_is_of_one_moment_whatever_is_committed_meanwhile(tmp_path: Path, journal: str) -> None:
    live, target = tmp_path / "live", tmp_path / "copied"
    bank(live, journal=journal)
    stop, commits = threading.Event(), 0

    def write() -> None:
        nonlocal commits
        with closing(sqlite3.connect(live, timeout=60, isolation_level=None)) as connection:
            while not stop.is_set():
                one, other = (commits * 7) % 4000, 3999 - (commits * 11) % 4000
                connection.execute("begin immediate")
                connection.execute("update account set held = held - 1, pad = ? where id = ?", (b"y" * 900, one))
                connection.execute("update account set held = held + 1 where id = ?", (other,))
                connection.execute("commit")
                commits += 1
                time.sleep(0.002)  # as a server, which does more than commit

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with database.Copy(live, target) as copied:
            times, deadline = 0, time.monotonic() + 60
            while times < 2 or (commits <= 2 and time.monotonic() < deadline):
                copied.renew()
                copied.check()
                assert held(target) == 400_000
                times += 1
    finally:
        stop.set()
        writer.join()
    assert commits > 2


def is_locked(path: Path) -> bool:
    """Whether a commit would wait."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("begin immediate")
        except sqlite3.OperationalError:
            return True
    return False


def test_readers_go_on_and_no_hold_grows_without_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit comes between any two holds. After some tries there are none between them."""
    live, target = tmp_path / "live", tmp_path / "copied"
    bank(live)
    compare, longest = database.Copy._compare, []

    def compared(self: database.Copy, offset: int, until: float) -> int:
        if not is_locked(live):
            return compare(self, offset, until)
        with closing(sqlite3.connect(live, timeout=0, isolation_level=None)) as connection:
            assert connection.execute("select count(*) from account").fetchone() == (4000,)
        longest.append(until)
        return compare(self, offset, until if until == float("inf") else 0.0)

    def between(_seconds: float) -> None:
        with closing(sqlite3.connect(live, timeout=0, isolation_level=None)) as connection:
            connection.execute("update account set held = held + 1 where id = 1")

    monkeypatch.setattr(database.Copy, "_compare", compared)
    monkeypatch.setattr(database.time, "sleep", between)
    monkeypatch.setattr(database.time, "monotonic", lambda: 1000.0)
    database.copy(live, target)
    doubled = [database.HOLD * 2**number for number in range(database.TRIES)]
    expected = [1000.0 + min(hold, database.LONGEST_HOLD) for hold in doubled]
    assert longest == [*expected, float("inf")]
    assert held(target) == 400_000 + database.TRIES


def test_a_copy_is_cut_into_holds_and_begun_again_only_after_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, target = tmp_path / "live", tmp_path / "copied"
    bank(live)
    compare, holds = database.Copy._compare, []

    def compared(self: database.Copy, offset: int, until: float) -> int:
        if is_locked(live):
            holds.append(offset)
            until = 0.0  # each hold is one chunk
        return compare(self, offset, until)

    def between(_seconds: float) -> None:
        with closing(sqlite3.connect(live, timeout=0, isolation_level=None)) as connection:
            connection.execute("begin exclusive")  # nobody holds it between two holds
            if len(holds) == 2:
                connection.execute("update account set held = held + 1 where id = 1")
            connection.execute("commit")

    monkeypatch.setattr(database.Copy, "_compare", compared)
    monkeypatch.setattr(database.time, "sleep", between)
    database.copy(live, target)
    chunks = -(-live.stat().st_size // database.CHUNK)
    assert chunks >= 4
    whole = [*range(0, chunks * database.CHUNK, database.CHUNK), live.stat().st_size]
    assert holds == [0, database.CHUNK, *whole]
    assert held(target) == 400_001


def test_a_copy_follows_a_database_that_shrinks(tmp_path: Path) -> None:
    live, target = tmp_path / "live", tmp_path / "copied"
    bank(live)
    with database.Copy(live, target) as copied:
        copied.renew()
        with closing(sqlite3.connect(live, isolation_level=None)) as connection:
            connection.execute("delete from account where id > 9")
            connection.execute("vacuum")
        copied.renew()
        copied.check()
    assert (held(target), target.read_bytes()) == (1000, live.read_bytes())


def test_a_file_that_is_deleted_after_it_was_opened_is_kept(tmp_path: Path) -> None:
    repository, source = Repository(tmp_path / "backups"), tmp_path / "file"
    source.write_bytes(b"content")
    with repository.locked():
        opened = open_file(source)
        source.unlink()
        digest = repository.keep_file(source, {}, opened=opened)
        assert repository.read(digest) == b"content"


def test_the_look_at_what_was_committed_since(tmp_path: Path) -> None:
    """Only what is new is read again, and what was deleted is gone."""
    from devpi_server.fileutil import dumps

    data = made_data(tmp_path / "data")
    one, two = CONTENTS
    with stored.connect(data / ".sqlite") as connection:
        assert [path for path, _ in stored.changed(connection, since=-1)] == [one, two]
        last = stored.serial(connection)
        assert list(stored.changed(connection, since=last)) == []
        connection.execute(
            "insert into changelog values (?, ?)", (last + 1, dumps(({one: ("STAGEFILE", 0, None)}, [])))
        )
        connection.execute("update kv set serial = ? where key = ?", (last + 1, one))
        assert list(stored.changed(connection, since=last)) == [(one, None)]
        assert [file.path for file in stored.stored(connection)] == [two]


@pytest.mark.usefixtures("fast")
def test_a_compaction_that_dies_at_any_step_leaves_the_database_whole(tmp_path: Path) -> None:
    data, before = tmp_path / "data", tmp_path / "before"
    made_data(before)
    with closing(sqlite3.connect(before / ".sqlite")) as connection:
        connection.execute("create table gone (content blob)")
        connection.execute("insert into gone values (zeroblob(200000))")
        connection.commit()
        connection.execute("drop table gone")
        connection.commit()

    def files() -> list[Stored]:
        with stored.connect(data / ".sqlite") as connection:
            assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
            return sorted(stored.stored(connection), key=lambda file: file.path)

    def reset() -> None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(before, data)

    def check_() -> None:
        assert [file.path for file in files()] == sorted(CONTENTS)
        said = compact(data)
        assert int(str(said["after_bytes"])) < (before / ".sqlite").stat().st_size
        assert [file.path for file in files()] == sorted(CONTENTS)
        assert not list(data.glob("*.compact"))

    assert sweep(lambda: compact(data), check_, reset) > 5


@pytest.mark.usefixtures("fast")
def test_a_repair_that_dies_at_any_step_is_completed_by_the_next(tmp_path: Path) -> None:
    data, before, place = tmp_path / "data", tmp_path / "before", tmp_path / "backups"
    made_data(before)
    create(before, Repository(place), cache=True)
    upload, cached = (before / "+files" / path for path in CONTENTS)
    orphan = before / "+files/root/dev/+f/orphan"
    for path in (upload, cached, orphan):
        path.unlink(missing_ok=True)
        path.write_bytes(b"damaged")
    os.utime(orphan, (0, 0))

    def reset() -> None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(before, data, copy_function=shutil.copy2)

    def repair() -> None:
        check(data, repair=True, rate=0, repository=Repository(place))

    def converges() -> None:
        repair()
        assert (data / upload.relative_to(before)).read_bytes() == CONTENTS["root/dev/+f/abc/one.whl"]
        assert not (data / orphan.relative_to(before)).exists()
        found = check(data, repair=False, rate=0)["findings"]
        assert isinstance(found, list)
        assert [(one["kind"], one["mirror"]) for one in found] == [("missing", True)]  # fetched when it is asked for
        aside = [path.read_bytes() for path in data.glob(".deployer/set-aside/**/*") if path.is_file()]
        assert aside == [b"damaged"] * 3
        assert not (data / ".deployer/check.file").exists() and not (data / ".deployer/check.sqlite").exists()

    assert sweep(repair, converges, reset) > 10


@pytest.mark.usefixtures("fast")
def test_repairs_in_the_same_second_keep_what_each_sets_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    made_data(data)
    orphan = data / "+files/root/dev/+f/orphan"
    monkeypatch.setattr("deployer.server.backup.check.datetime", Stopped)
    for content in (b"first", b"second", b"third"):
        orphan.write_bytes(content)
        os.utime(orphan, (0, 0))
        check(data, repair=True, rate=0)
        assert not orphan.exists()
    aside = sorted(path.read_bytes() for path in data.glob(".deployer/set-aside/*/root/dev/+f/orphan"))
    assert aside == [b"first", b"second", b"third"]


@pytest.mark.parametrize("path", ["root/dev/../../../evil", "root/dev", "root//demo", "/etc/evil", "root/dev/a\0b"])
def test_a_list_of_owners_reaches_no_other_place(tmp_path: Path, path: str) -> None:
    with pytest.raises(Damaged):
        owners.put_back(tmp_path / "owners", f"root/dev  {path}\n".encode())
    assert not list(tmp_path.rglob("evil"))
