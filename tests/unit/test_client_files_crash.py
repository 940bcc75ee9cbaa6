"""Client files in crashes, races and on full disks: old bytes or new ones, never anything between."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deployer.clients import files, pip
from deployer.clients.pip import merging
from deployer.errors import ClientFileError, Locked
from tests.client_place import MINE, OTHER, SETTINGS, Place, in_child, refused

# Between two of these nothing on the disk changes (`write`, `flush` and `close` are the stream's, too).
STEPS = frozenset(
    [
        "open",
        "write",
        "flush",
        "close",
        "fsync",
        "replace",
        "rename",
        "unlink",
        "mkdir",
        "rmdir",
        "chmod",
        "fchmod",
        "fchown",
        "flock",
        "link",
        "truncate",
    ]
)


def calls_until_death(action: Callable[[], object], limit: int) -> int:
    """Do ``action`` in a child that dies just before its ``limit``-th call that may change the disk."""
    count = 0

    def tick(frame: object, event: str, argument: object) -> None:
        nonlocal count
        if event == "c_call" and getattr(argument, "__name__", "") in STEPS:
            count += 1
            if count == limit:
                os._exit(77)

    def run() -> None:
        sys.setprofile(tick)
        try:
            action()
        finally:
            sys.setprofile(None)

    return in_child(run)


def sweep(place: Place, action: Callable[[], object], check: Callable[[], None], reset: Callable[[], None]) -> int:
    """Let ``action`` die at every step; ``check`` what is left each time. How often it died."""
    limit = 0
    while True:
        limit += 1
        reset()
        code = calls_until_death(action, limit)
        check()
        if code == 0:
            return limit - 1
        assert code == 77


@pytest.mark.timeout(300)
@pytest.mark.parametrize("former", [None, MINE], ids=["new", "existing"])
def test_configure_may_die_anywhere(place: Place, former: bytes | None) -> None:
    if former is not None:
        place.write(former, 0o640)
    original = place.tree()
    place.configure()
    written = place.conf.read_bytes()
    place.undo()

    def check() -> None:
        now = place.conf.read_bytes() if place.conf.exists() else None
        assert now in (former, written)
        place.configure()
        assert place.conf.read_bytes() == written
        place.undo()
        assert place.tree() == original and place.records() == []

    assert sweep(place, place.configure, check, lambda: None) > 25


@pytest.mark.timeout(300)
@pytest.mark.parametrize("former", [None, MINE], ids=["new", "existing"])
def test_undo_may_die_anywhere(place: Place, former: bytes | None) -> None:
    if former is not None:
        place.write(former, 0o640)
    original = place.tree()

    def check() -> None:
        assert (place.conf.read_bytes() if place.conf.exists() else None) in (former, written)
        place.undo()
        assert place.tree() == original and place.records() == []

    place.configure()
    written = place.conf.read_bytes()
    assert sweep(place, place.undo, check, place.configure) > 10


@pytest.mark.parametrize("name", ["fsync", "replace", "fchmod", "open", "fdopen", "unlink"])
def test_a_system_that_refuses(place: Place, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place.write(MINE)
    real = getattr(os, name)
    left = 0

    def failing(*args: object, **kwargs: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    failures = 0
    for at in range(12):
        left = at
        with monkeypatch.context() as patched:
            patched.setattr(os, name, failing)
            try:
                place.configure()
            except ClientFileError as error:
                assert "No space left" in error.message
                failures += 1
        now = place.conf.read_bytes()
        assert now in (MINE, merging.merge(MINE.decode(), SETTINGS.values()).encode())
        assert [path.name for path in place.conf.parent.iterdir()] == ["pip.conf"]
        place.undo()
        assert place.conf.read_bytes() == MINE
    # Removing a temporary file that is not there, and syncing a folder, may fail without harm.
    assert failures > 0


def test_a_change_by_another_program_is_not_overwritten(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.write(MINE)

    def expect(real_path: Path, expected: bytes | None, path: Path) -> None:
        if path == place.conf and (place.conf.parent / ".pip.conf.deployer").exists():
            place.conf.write_bytes(b"[global]\n# by pip config set\n")
        real_expect(real_path, expected, path)

    real_expect = files._expect
    monkeypatch.setattr(files, "_expect", expect)
    assert "meanwhile" in refused(place.configure).message
    assert place.conf.read_bytes() == b"[global]\n# by pip config set\n"
    assert [path.name for path in place.conf.parent.iterdir()] == ["pip.conf"]


def test_what_a_killed_run_left_does_not_stay(place: Place) -> None:
    place.write(MINE)
    (place.conf.parent / ".pip.conf.deployer").write_bytes(b"half")
    place.configure()
    assert [path.name for path in place.conf.parent.iterdir()] == ["pip.conf"]


def test_a_run_that_does_not_finish(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    place.configure()
    monkeypatch.setattr(files, "LOCK_WAIT", 0.1)
    with FileLock(place.state / f"{files.digest(place.conf)}.lock"), pytest.raises(Locked):
        place.configure(OTHER)
    assert place.url() == SETTINGS.index_url


def test_many_at_once(place: Place) -> None:
    place.write(MINE)
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for port in range(5):
                    url = f"http://127.0.0.1:{3000 + number * 10 + port}/root/dev/+simple/"
                    place.configure(pip.PipSettings(index_url=url, timeout=60))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert place.url().endswith("/root/dev/+simple/")
    assert len(json.loads(place.records()[0].read_text())["writes"]) == 40
    place.undo()
    assert place.conf.read_bytes() == MINE
