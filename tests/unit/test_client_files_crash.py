"""Client files in crashes, races and on full disks: old bytes or new ones, never anything between."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from deployer.clients import files
from deployer.clients.client import ClientSettings
from deployer.clients.pip import merging
from deployer.errors import ClientFileError, Locked
from tests.client_place import MINE, OTHER, SETTINGS, Place, refused


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
        assert now in (MINE, merging.merge(MINE.decode(), place.client.values(SETTINGS, place.conf)).encode())
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
                    place.configure(ClientSettings(index_url=url, timeout=60))
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert place.url().endswith("/root/dev/+simple/")
    assert len(json.loads(place.records()[0].read_text())["writes"]) == 40
    place.undo()
    assert place.conf.read_bytes() == MINE
