"""The order that a replica becomes the primary: when it is given, and what a kill leaves of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deployer.protocol import ExitCode, MemberStatus, Refusal
from deployer.server.members import promotion
from deployer.server.members.promotion import Order, is_ordered, order, take
from deployer.server.members.role import PRIMARY, REPLICA, Role, nodeinfo
from deployer.server.secret_files import Private
from tests.death import sweep

STORAGE = {"name": "sqlite", "settings": {}}
REPLICA_DATA = {
    "uuid": "own",
    "role": "replica",
    "masterurl": "http://127.0.0.1:3141/",
    "primary-uuid": "data",
    "storage": STORAGE,
}
PRIMARY_DATA = {"uuid": "data", "role": "primary", "storage": STORAGE}
REPLICA_STATUS = MemberStatus(
    number=1,
    role=REPLICA,
    uuid="data",
    serial=7,
    primary_serial=7,
    lag_seconds=20.0,
    synced=False,
    files_in_sync=True,
    files_missing=0,
    errors=(),
    version="1",
    server_version="6.20.3",
    last_contact_seconds=20.0,
    primary_answers=False,
)


@pytest.fixture
def serverdir(tmp_path: Path) -> Path:
    return _replica(tmp_path / "replica")


def _replica(serverdir: Path, *, ordered: bool = False) -> Path:
    shutil.rmtree(serverdir, ignore_errors=True)
    private = Private.of(serverdir)
    private.arrived.mkdir(parents=True)
    (private.arrived / "file").write_text("file")
    private.synced.write_text("data\n")
    (serverdir / ".nodeinfo").write_text(json.dumps(REPLICA_DATA))
    if ordered:
        private.promote.write_text(json.dumps({"uuid": "data", "serial": 7}))
    return serverdir


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The uploads whose files are not here."""
    found: list[str] = []
    monkeypatch.setattr(promotion, "missing_uploads", lambda serverdir: found)
    return found


def ordered(serverdir: Path, *, even: bool = False, **status: Any) -> dict[str, Any]:
    return order(serverdir, lambda _: replace(REPLICA_STATUS, **status), even_if_behind=even)


def test_a_replica_that_lacks_nothing_takes_the_order(serverdir: Path, lost: list[str]) -> None:
    told = ordered(serverdir)
    assert (told["number"], told["uuid"], told["commits_lost"], told["missing"]) == (1, "data", 0, [])
    assert Order.read(Private.of(serverdir)) == Order(uuid="data", serial=7)
    assert Private.of(serverdir).promote.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("status", "lacks", "words"),
    [
        ({"primary_serial": 9}, [], "lacks 2 commits of its primary \\(it has 7 of 9\\)"),
        ({"primary_serial": -1}, [], "what nobody knows"),
        ({}, ["root/dev/+f/a/b.whl"], "files of 1 uploads, such as root/dev/\\+f/a/b.whl"),
    ],
)
def test_what_would_be_lost_has_to_be_accepted(
    serverdir: Path, lost: list[str], status: dict[str, int], lacks: list[str], words: str
) -> None:
    lost += lacks
    with pytest.raises(Refusal, match=words) as caught:
        ordered(serverdir, **status)
    assert ("--even-if-behind" in caught.value.hint, is_ordered(serverdir)) == (True, False)
    told = ordered(serverdir, even=True, **status)
    assert (told["uploads_missing"], told["missing"], is_ordered(serverdir)) == (len(lacks), lacks, True)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"role": PRIMARY}, "is a primary already"),
        ({"uuid": ""}, "no data of a primary yet"),
        ({"primary_answers": True}, "still answers"),
    ],
)
def test_some_members_never_become_the_primary(
    serverdir: Path, lost: list[str], monkeypatch: pytest.MonkeyPatch, status: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(promotion, "SILENCE", 0.0)
    with pytest.raises(Refusal, match=words):
        ordered(serverdir, even=True, **status)
    assert not is_ordered(serverdir)


def test_a_member_with_other_data_never_becomes_the_primary(serverdir: Path, lost: list[str]) -> None:
    Private.of(serverdir).diverged.write_text("it has commits up to 9, and its primary only up to 7\n")
    with pytest.raises(Refusal, match="only up to 7"):
        ordered(serverdir, even=True)


def test_the_order_waits_until_the_primary_has_stopped(serverdir: Path, lost: list[str]) -> None:
    answers = iter([True, True, False])
    told = order(serverdir, lambda _: replace(REPLICA_STATUS, primary_answers=next(answers)), even_if_behind=False)
    assert (told["serial"], next(answers, None)) == (7, None)


def test_uploads_without_their_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stored(connection: sqlite3.Connection) -> Iterator[Any]:
        for path, mirror in (("a/u/here", False), ("a/u/gone", False), ("a/m/gone", True)):
            yield promotion.stored.Stored(path, {}, mirror)

    database = promotion.stored.database(tmp_path)
    sqlite3.connect(database).close()
    monkeypatch.setattr(promotion.stored, "stored", stored)
    (tmp_path / "+files/a/u").mkdir(parents=True)
    (tmp_path / "+files/a/u/here").touch()
    assert promotion.missing_uploads(tmp_path) == ["a/u/gone"]


def test_only_a_primary_takes_the_order(serverdir: Path) -> None:
    assert not take(serverdir, Role(PRIMARY))  # none was given
    with pytest.raises(Refusal) as caught:
        Role(PRIMARY, number=1).check(serverdir)
    assert (caught.value.code, caught.value.hint) == (ExitCode.REFUSED, "deployer cluster promote MEMBER")
    _replica(serverdir, ordered=True)
    Role(PRIMARY, number=1).check(serverdir, promoted=is_ordered(serverdir))
    assert not take(serverdir, Role(REPLICA, "http://127.0.0.1:1/"))
    assert (nodeinfo(serverdir), is_ordered(serverdir)) == (REPLICA_DATA, True)


def test_an_order_for_other_data_is_refused(serverdir: Path) -> None:
    Private.of(serverdir).promote.write_text(json.dumps({"uuid": "other", "serial": 7}))
    with pytest.raises(Refusal, match="for the data other"):
        take(serverdir, Role(PRIMARY))
    assert nodeinfo(serverdir) == REPLICA_DATA


@pytest.mark.parametrize("content", ["", "{", "[]", '{"uuid": "data"}', '{"uuid": "data", "serial": "x"}'])
def test_a_damaged_order_is_none(serverdir: Path, content: str) -> None:
    Private.of(serverdir).promote.write_text(content)
    assert not is_ordered(serverdir)
    assert not take(serverdir, Role(PRIMARY))


def test_a_kill_leaves_a_replica_or_a_primary(serverdir: Path) -> None:
    """And the next start finishes it."""
    role = Role(PRIMARY, number=1)

    def check() -> None:
        found = nodeinfo(serverdir)
        assert found in (REPLICA_DATA, PRIMARY_DATA)
        role.check(serverdir, promoted=is_ordered(serverdir))
        take(serverdir, role)
        private = Private.of(serverdir)
        assert nodeinfo(serverdir) == PRIMARY_DATA
        assert [path.name for path in private.directory.iterdir()] == []
        role.check(serverdir)

    def reset() -> None:
        _replica(serverdir, ordered=True)

    steps = sweep(lambda: take(serverdir, role), check, reset)
    assert steps > 8
