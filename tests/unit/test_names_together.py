"""Names of a mirror's projects are stored together."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from deployer.server.devpi import mirror_names
from deployer.server.devpi.mirror_names import MirrorNames


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, set[str]]]:
    """What was stored, one entry a commit."""
    commits: list[dict[str, set[str]]] = []

    def add_names(_xom: Any, names: dict[str, set[str]]) -> int:
        commits.append(dict(names))
        return sum(len(added) for added in names.values())

    devpi = SimpleNamespace(add_names=add_names, unlisted=lambda _xom: {"root/pypi": {"lost"}})
    monkeypatch.setattr(mirror_names, "inside", lambda: devpi)
    monkeypatch.setattr(mirror_names, "PAUSE", 3600.0)
    return commits


def test_names_of_many_files_take_one_commit(stored: list[dict[str, set[str]]]) -> None:
    names = MirrorNames(None)
    for number in range(100):
        names.note(f"root/{number % 2}", f"demo{number // 4}")
    assert stored == []
    names.write()
    names.write()
    together = {f"demo{number}" for number in range(25)}
    assert stored == [{"root/0": together, "root/1": together}]


def test_they_are_stored_by_themselves(stored: list[dict[str, set[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_names, "PAUSE", 0.0)
    names = MirrorNames(None)
    names.note("root/pypi", "demo")
    timer = names._timer
    if timer is not None:  # else it has run already
        timer.join(60)
    assert stored == [{"root/pypi": {"demo"}}]


def test_what_a_kill_has_lost_is_found(stored: list[dict[str, set[str]]]) -> None:
    MirrorNames(None).find()
    assert stored == [{"root/pypi": {"lost"}}]


def test_on_a_full_disk_names_stay_pending(stored: list[dict[str, set[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    devpi = mirror_names.inside()
    names = MirrorNames(None)
    names.note("root/pypi", "demo")

    def full(_xom: Any, _names: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(devpi, "add_names", full)
        names.write()
    names.note("root/pypi", "more")
    names.write()
    assert stored == [{"root/pypi": {"demo", "more"}}]
