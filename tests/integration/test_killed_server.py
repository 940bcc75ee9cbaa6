"""``kill -9`` again and again while clients upload and change the configuration: what was acknowledged is there.

``DEPLOYER_TEST_KILL_ROUNDS`` says how often, by default a few. A container's server is killed in turns: by itself,
after which its engine starts it again, and with its whole container, which is then started by hand. So the engine's
pause, which doubles up to a minute while it alone starts a container again and again, stays a tenth of a second.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from urllib.parse import urljoin

import pytest

from tests.contained import Contained
from tests.indexed_server import FILE, JSON, get, make_indexes, upload
from tests.server_process import Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.timeout(900)

ROUNDS = int(os.environ.get("DEPLOYER_TEST_KILL_ROUNDS", "4"))
WRITERS = 3


class Writers:
    """Clients that write until their server is gone, and what it acknowledged to them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.uploads: dict[str, bytes] = {}
        self.title = 0
        self._number = 0
        self._lock = threading.Lock()

    def write_until_it_is_killed(self, kill: Callable[[], object], *, after: float) -> None:
        auth = self.server.auth
        threads = [threading.Thread(target=self._upload, args=(auth,)) for _ in range(WRITERS)]
        threads += [threading.Thread(target=self._configure, args=(auth,)), threading.Thread(target=self._read)]
        for thread in threads:
            thread.start()
        time.sleep(after)  # at any moment of it
        kill()
        for thread in threads:
            thread.join()

    def _upload(self, auth: dict[str, str]) -> None:
        while True:
            with self._lock:
                self._number += 1
                wheel = make_wheel("acme", f"1.{self._number}", files={"data.bin": os.urandom(50_000)})
            try:
                if upload(self.server, auth, "root/dev", wheel) == 200:
                    self.uploads[wheel.filename] = wheel.content
            except (OSError, http.client.HTTPException):
                return

    def _configure(self, auth: dict[str, str]) -> None:
        while True:
            wanted = self.title + 1
            try:
                status, _ = request(self.server.port, "PATCH", "/root/dev", body=[f"title={wanted}"], headers=auth)
            except (OSError, http.client.HTTPException):
                return
            if status == 200:
                self.title = wanted

    def _read(self) -> None:
        while True:
            try:
                get(self.server.port, "/root/dev/+simple/acme/", JSON)
            except (OSError, http.client.HTTPException):
                return


def test_nothing_acknowledged_is_lost_and_every_restart_works(anywhere: Server) -> None:
    chance = random.Random(7)
    server = anywhere.start()
    with Upstream([]) as upstream:
        make_indexes(server.port, server.auth, upstream)
        writers = Writers(server)
        kills = [partial(server.send, signal.SIGKILL)]
        if isinstance(server, Contained):
            kills.append(server.kill_container)
        for number in range(ROUNDS):
            writers.write_until_it_is_killed(kills[number % len(kills)], after=chance.uniform(0.1, 0.8))
            server.start()
            check(server, writers)
    print(f"{ROUNDS} rounds, {len(writers.uploads)} uploads, {writers.title} changes acknowledged, none lost")
    assert writers.uploads


def check(server: Server, writers: Writers) -> None:
    page = "/root/dev/+simple/acme/"
    answer = get(server.port, page, JSON)
    assert answer.body == get(server.port, page + "?devpi", JSON).body
    files = json.loads(answer.body)["files"] if answer.status == 200 else []
    urls = {file["filename"]: file["url"] for file in files}
    assert set(writers.uploads) <= set(urls)
    for name, content in list(writers.uploads.items())[-20:]:
        assert get(server.port, urljoin(page, urls[name]), FILE).body == content
    title = request(server.port, "GET", "/root/dev")[1]["result"].get("title", 0)
    assert int(title) in (writers.title, writers.title + 1)
    writers.title = int(title)
