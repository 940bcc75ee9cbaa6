"""``python -m benchmarks.backup_pause``: what clients wait for while a backup of many files is taken; by hand.

One client asks for a stored page, one for a file, one for a page that the server makes, and one uploads and deletes,
each again and again: before, during the first backup, and during a second one of the same files. The longest times are
shown, and how the second backup compares with the first; then that of a third one while nobody writes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.backups import server_verb
from tests.indexed_server import FILE, JSON, get, upload
from tests.server_process import Server, request
from tests.upstream import make_wheel

AT_ONCE = 50
"""Files of one commit."""


def add_files(serverdir: Path, number: int, size: int) -> None:
    """Add files of a stage to the data of a stopped server, as many commits of uploads would."""
    from devpi_server.fileutil import dumps

    with closing(sqlite3.connect(serverdir / ".sqlite")) as connection:
        (serial,) = connection.execute("select max(serial) from changelog").fetchone()
        for first in range(0, number, AT_ONCE):
            serial, changes = serial + 1, {}
            for one in range(first, min(first + AT_ONCE, number)):
                content = f"{one} ".encode() * (size // 6)
                digest = hashlib.sha256(content).hexdigest()
                path = f"root/many/+f/{digest[:3]}/{digest[3:16]}/many{one}-1.0.tar.gz"
                file = serverdir / "+files" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                value: dict[str, object] = {"last_modified": "Sat, 01 Jan 2028 00:00:00 GMT", "project": f"many{one}"}
                value |= {"version": "1.0", "hashes": {"sha256": digest}, "hash_spec": f"sha256={digest}"}
                value["metadata"] = "of a usual size " * 120
                changes[path] = ("STAGEFILE", -1, value)
                connection.execute("insert into kv values (?, ?, ?)", (path, "STAGEFILE", serial))
            connection.execute("insert into changelog values (?, ?)", (serial, dumps((changes, []))))
        connection.commit()


class Client:
    """Does one thing again and again; the longest time in milliseconds since it was last asked for."""

    def __init__(self, action: Callable[[int], None]) -> None:
        self._action, self._longest, self._number = action, 0.0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._number += 1
            begun = time.perf_counter()
            self._action(self._number)
            self._longest = max(self._longest, time.perf_counter() - begun)
            self._stop.wait(0.005)

    def longest(self) -> float:
        found, self._longest = 1000 * self._longest, 0.0
        return found

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


def actions(server: Server) -> dict[str, Callable[[int], None]]:
    page = get(server.port, "/root/dev/+simple/asked/", JSON).body
    file = "/root/dev/" + json.loads(page)["files"][0]["url"].removeprefix("../../").partition("#")[0]

    auth = server.auth

    def write(number: int) -> None:
        if number % 4:
            assert upload(server, auth, "root/dev", make_wheel("written", f"1.{number}")) == 200
        else:
            assert request(server.port, "DELETE", "/root/dev/written", headers=auth)[0] == 200

    return {
        "stored page": lambda _: _whole(server, "/root/dev/+simple/asked/", JSON),
        "file": lambda _: _whole(server, file, FILE),
        "page that is made": lambda _: _whole(server, "/root/dev/+simple/asked/?made", JSON),
        "upload or deletion": write,
    }


def _whole(server: Server, path: str, headers: dict[str, str]) -> None:
    assert get(server.port, path, headers).status == 200


def measured(clients: dict[str, Client], action: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    for client in clients.values():
        client.longest()
    found = action()
    return {name: round(client.longest()) for name, client in clients.items()}, found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup_pause", description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=20_000, help="bytes of each")
    parser.add_argument("--idle", type=float, default=10.0, help="seconds that are measured before the first backup")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="deployer-pause-") as scratch:
        directory = Path(scratch)
        server = Server(directory / "data").start()
        for index in ("dev", "many"):
            body = {"type": "stage", "bases": [], "volatile": True}
            assert request(server.port, "PUT", f"/root/{index}", body=body, headers=server.auth)[0] == 200
        assert upload(server, server.auth, "root/dev", make_wheel("asked", "1.0")) == 200
        server.end()
        add_files(server.serverdir, options.files, options.size)
        os.sync()  # else the backup's first write to the disk takes these files with it
        server.start()
        clients = {name: Client(action) for name, action in actions(server).items()}
        try:
            words = ("backup", "create", "--directory", directory / "backups", "--serverdir", server.serverdir)

            def create() -> dict[str, Any]:
                done = server_verb(*words)
                assert not done.returncode, done.stderr
                return dict(json.loads(done.stdout))

            idle, _ = measured(clients, lambda: time.sleep(options.idle))
            first, one = measured(clients, create)
            second, two = measured(clients, create)
            for client in clients.values():
                client.end()
            create()
            three = create()
        finally:
            for client in clients.values():
                client.end()
            server.end()
        size = (directory / "data/.sqlite").stat().st_size >> 20
        lines = [f"database {size} MiB, {one['files']} files; longest time in ms: before, first backup, second backup"]
        lines += [f"{name:<20} {idle[name]:>6} {first[name]:>6} {second[name]:>6}" for name in idle]
        for what, found in (("first", one), ("second", two), ("unchanged", three)):
            lines.append(f"{what}: {found['seconds']} s, {found['new_bytes']} bytes")
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
