"""A backup that is taken while the server serves restores whole: the files, the database, and what was uploaded."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.server.backup import create as taking
from deployer.server.backup import database
from deployer.server.backup.repository import Repository
from deployer.server.devpi import stored
from tests.indexed_server import FILE, JSON, get, make_indexes, upload
from tests.server_process import Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server
CALL = (sys.executable, "-m", "deployer.server", "backup")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("cached", "1.0")]) as serving:
        yield serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("served") / "data").start("--front", "python")
    try:
        make_indexes(server.port, server.auth, upstream)
        for number in range(3):
            assert upload(server, server.auth, "root/dev", make_wheel("demo", f"1.{number}")) == 200
        page = json.loads(get(server.port, "/root/pypi/+simple/cached/", JSON).body)
        path = f"/root/pypi/+simple/cached/{page['files'][0]['url']}"
        assert get(server.port, os.path.normpath(path.split("#")[0]), FILE).status == 200
        yield server
    finally:
        server.end()


def call(action: str, directory: Path, *words: object) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(
        [*CALL, action, "--directory", str(directory), *map(str, words)], capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def create(server: Server, directory: Path, *words: str) -> dict[str, Any]:
    code, said, err = call("create", directory, "--serverdir", server.serverdir, *words)
    assert code == 0, err
    return said


def fsck(serverdir: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "deployer.server", "fsck", "--serverdir", str(serverdir)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def digests(serverdir: Path) -> dict[str, str]:
    files = serverdir / "+files"
    return {
        str(path.relative_to(files)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files.rglob("*")
        if path.is_file()
    }


def test_a_second_backup_adds_nothing_and_restores_whole(server: Server, tmp_path: Path) -> None:
    directory, target = tmp_path / "backups", tmp_path / "restored"
    request(server.port, "GET", "/root/pypi")  # names of new projects are stored before they are listed
    first = create(server, directory)
    assert (first["files"], first["left_out"], first["lost"]) == (len(digests(server.serverdir)), 0, [])
    again = create(server, directory)
    for _ in range(10):
        if again["serial"] == first["serial"]:
            break
        first, again = again, create(server, directory)  # devpi committed something of its own in between
    assert (again["serial"], again["files"], again["new_bytes"]) == (first["serial"], first["files"], 0)
    record = Path(".deployer/owners/root/dev/demo")
    (server.serverdir / record).parent.mkdir(parents=True, exist_ok=True)
    (server.serverdir / record).write_text("root/dev\n")
    create(server, directory)
    assert call("prune", directory, "--keep-last", 1)[0] == 0
    assert call("verify", directory)[0] == 0
    code, said, err = call("restore", directory, "--serverdir", target)
    assert code == 0, err
    assert said["uuid"] == json.loads((server.serverdir / ".nodeinfo").read_text())["uuid"]
    assert digests(target) == digests(server.serverdir)
    assert (target / record).read_text() == "root/dev\n"
    assert fsck(target)[0] == 0
    assert not (target / ".deployer/root-password").exists()
    restored = Server(target).start("--front", "python")
    try:
        page = json.loads(get(restored.port, "/root/dev/+simple/demo/", JSON).body)
        assert sorted(file["filename"] for file in page["files"]) == [f"demo-1.{n}-py3-none-any.whl" for n in range(3)]
    finally:
        restored.end()


def test_caches_can_be_left_out(server: Server, tmp_path: Path) -> None:
    said = create(server, tmp_path / "backups", "--without-cache")
    assert (said["left_out"], said["files"]) == (1, len(digests(server.serverdir)) - 1)
    assert call("restore", tmp_path / "backups", "--serverdir", tmp_path / "restored")[0] == 0
    code, lines = fsck(tmp_path / "restored")
    assert (code, "A total of 1 files are missing in mirrors" in lines) == (0, True)


def test_uploads_and_deletions_go_on(server: Server, tmp_path: Path) -> None:
    """What was acknowledged before a backup began is in it, and devpi's own check finds nothing wrong."""
    stop, directory = threading.Event(), tmp_path / "backups"
    auth, failed = server.auth, []

    def write(seed: int) -> None:
        chance, number = random.Random(seed), seed * 1_000_000
        while not stop.is_set():
            number += 1
            name = f"churn{seed}-{chance.randrange(3)}"
            try:
                if chance.random() < 0.6:
                    upload(server, auth, "root/dev", make_wheel(name, f"1.{number}"))
                else:
                    request(server.port, "DELETE", f"/root/dev/{name}", headers=auth)
            except OSError as error:
                failed.append(error)

    writers = [threading.Thread(target=write, args=(seed,)) for seed in (1, 2)]
    for writer in writers:
        writer.start()
    try:
        for number in range(2):
            kept = make_wheel("acknowledged", f"1.{number}")
            assert upload(server, auth, "root/dev", kept) == 200
            create(server, directory)
            shutil.rmtree(target := tmp_path / "restored", ignore_errors=True)
            code, _, err = call("restore", directory, "--serverdir", target)
            assert code == 0, err
            code, lines = fsck(target)
            assert code == 0, lines
            assert "issing" not in lines, lines
            assert kept.sha256 in digests(target).values()
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert not failed


def test_a_file_that_is_deleted_meanwhile_costs_another_round(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth, renew, rounds = server.auth, database.Copy.renew, []
    for number in range(3):
        assert upload(server, auth, "root/dev", make_wheel(f"passing-{number}", "1.0")) == 200

    def renewed(self: database.Copy) -> None:
        renew(self)
        rounds.append(stored.serial(sqlite3.connect(self.target)))
        if len(rounds) <= 2:
            assert request(server.port, "DELETE", f"/root/dev/passing-{len(rounds) - 1}", headers=auth)[0] == 200

    monkeypatch.setattr(database.Copy, "renew", renewed)
    said = taking.create(server.serverdir, Repository(tmp_path / "backups"), cache=True)
    assert (said["lost"], len(rounds), said["serial"]) == ([], 2, rounds[-1])  # its blobs keep the others


def test_commits_are_held_back_for_the_last_round(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, look, take = [], taking._Files.look, taking._Files.take

    def looked(self: taking._Files, copied: Path, **words: bool) -> None:
        look(self, copied, **words)
        with stored.connect(server.serverdir / ".sqlite") as connection:
            connection.execute("pragma busy_timeout = 0")
            try:
                connection.execute("begin exclusive")
                connection.execute("rollback")
                held.append(False)
            except sqlite3.OperationalError:
                held.append(True)

    def took(self: taking._Files) -> None:
        take(self)
        self.complete = len(held) > taking.FREE_ROUNDS

    monkeypatch.setattr(taking._Files, "look", looked)
    monkeypatch.setattr(taking._Files, "take", took)
    taking.create(server.serverdir, Repository(tmp_path / "backups"), cache=True)
    assert held == [False] * taking.FREE_ROUNDS + [True]
    assert upload(server, server.auth, "root/dev", make_wheel("after", "1.0")) == 200


def test_a_lost_file_is_reported_and_the_rest_is_kept(server: Server, tmp_path: Path) -> None:
    assert upload(server, server.auth, "root/dev", make_wheel("gone", "1.0")) == 200
    path = next(server.serverdir.glob("+files/root/dev/+f/*/*/gone-1.0-py3-none-any.whl"))
    content = path.read_bytes()
    path.unlink()
    try:
        said = create(server, tmp_path)
        assert [(one["path"].split("/")[-1], one["why"], one["mirror"]) for one in said["lost"]] == [
            (path.name, "missing", False)
        ]
        path.write_bytes(b"other" + content)
        assert create(server, tmp_path)["lost"][0]["why"] == "sha256 mismatch"
        assert call("verify", tmp_path)[0] == 0
    finally:
        path.write_bytes(content)


def test_a_damaged_backup_restores_nothing(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    create(server, directory)
    blob = max((directory / "blobs").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    content = blob.read_bytes()
    if blob.stat().st_nlink > 1:  # not the server's own file
        blob.unlink()
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for action in ("verify", "restore"):
        code, _, err = call(action, directory, *(("--serverdir", tmp_path / "new") if action == "restore" else ()))
        assert (code, "another content" in err) == (9, True), err
    # What a failed restore leaves is no server directory.
    assert Server(tmp_path / "new").refuses()[0] == 11


def test_kills_leave_earlier_backups_whole(server: Server, tmp_path: Path) -> None:
    directory = tmp_path / "backups"
    create(server, directory)
    killed = 0
    for number in range(4):
        assert upload(server, server.auth, "root/dev", make_wheel("more", f"1.{number}")) == 200
        process = subprocess.Popen(
            [*CALL, "create", "--directory", str(directory), "--serverdir", str(server.serverdir)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(0.2 * number)  # anywhere between its first import and its end
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        assert call("verify", directory)[0] == 0
    assert killed
    said = create(server, directory)
    assert said["files"] == len(digests(server.serverdir))
    before = len(list((directory / "backups").iterdir()))
    code, pruned, err = call("prune", directory, "--keep-last", 1)
    assert (code, len(pruned["removed"])) == (0, before - 1), err
    assert call("verify", directory)[0] == 0
    assert list((directory / "new").iterdir()) == []


def test_what_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("mine")
    assert call("create", tmp_path / "mine", "--serverdir", server.serverdir)[0] == 11
    assert call("create", tmp_path / "backups", "--serverdir", tmp_path / "nothing")[0] == 11
    assert call("restore", tmp_path / "backups", "--serverdir", tmp_path / "new")[0] == 11
    create(server, tmp_path / "backups")
    assert call("restore", tmp_path / "backups", "--serverdir", tmp_path / "mine")[0] == 11
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]
    manifest = next((tmp_path / "backups/backups").iterdir())
    manifest.write_text(manifest.read_text().replace('"schema": 1', '"schema": 2'))
    code, _, err = call("verify", tmp_path / "backups")
    assert (code, "newer deployer" in err) == (9, True)
