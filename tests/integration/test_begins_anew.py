"""A server that begins anew in its process: nginx goes on, others wait, and settings are taken or rolled back."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from deployer.protocol import MADE, Taken
from tests.front import PIP, Answer, ask, make_indexes, need_nginx, upload
from tests.integration.test_front import Fronted, file_of, until
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

_orders = count()
HERE = "container-1"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("demo", "1.0"), make_wheel("cold", "1.0")]) as it:
        yield it


@pytest.fixture
def server(upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fronted]:
    need_nginx()
    monkeypatch.setenv(MADE, HERE)
    server = Fronted(tmp_path / "server")
    try:
        server.start("--front", "nginx")
        server.auth_now = make_indexes(server, upstream.simple_url)
        yield server
    finally:
        server.end()


def order(server: Server, *words: str, made: str = HERE) -> Taken:
    """Order the settings; none: those that the server has."""
    whole = (*server.words, *words) if words else ()
    taken = Taken(id=f"order-{next(_orders)}", made=made, spec="digest", words=whole)
    verb = (sys.executable, "-m", "deployer.server", "take", "--serverdir", str(server.serverdir))
    done = subprocess.run(verb, input=taken.text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return taken


def taken(server: Server) -> Taken | None:
    path = server.private / "settings"
    return Taken.parse(path.read_text()) if path.exists() else None


def change(server: Server, *words: str) -> Taken:
    """Order the settings, and wait until the server has taken them."""
    wanted = order(server, *words)
    until(lambda: (found := taken(server)) is not None and found.id == wanted.id, f"taken:\n{server.output[-3000:]}")
    return wanted


@contextmanager
def never_stopping(calls: dict[str, Callable[[], Answer]]) -> Iterator[dict[str, list[object]]]:
    """Clients that ask again and again; the answers that were not 200, and the number of all, by kind."""
    bad: dict[str, list[object]] = {kind: [] for kind in calls}
    asked = dict.fromkeys(calls, 0)
    over = threading.Event()

    def client(kind: str) -> None:
        while not over.is_set():
            asked[kind] += 1
            try:
                status = calls[kind]().status
                bad[kind] += [status] if status != 200 else []
            except Exception as error:
                bad[kind].append(repr(error))
            time.sleep(0.002)

    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(client, kind) for kind in calls]
        try:
            yield bad
        finally:
            over.set()
        for one in running:
            one.result(PATIENCE)
    assert all(asked.values())


@pytest.mark.parametrize("front", ["nginx", "python"])
def test_nobody_is_failed_by_a_changed_key_or_a_restart(server: Fronted, front: str) -> None:
    assert server.process is not None
    server.send(signal.SIGTERM)
    server.start("--front", front)
    path = file_of(server, "demo")
    assert ask(server.port, path).status == 200
    until((server.serverdir / "+files" / path[1:]).exists, "the file is kept")
    pid, nginx = server.process.pid, server.nginx if front == "nginx" else 0
    calls = {
        "page": lambda: ask(server.port, "/root/dev/+simple/demo/", PIP),
        "file": lambda: ask(server.port, path),
        "devpi": lambda: ask(server.port, "/+api", {"Accept": "application/json"}),
    }
    with never_stopping(calls) as bad:
        change(server)
        change(server, "--front", front, "--threads", "7")
    assert bad == {"page": [], "file": [], "devpi": []}
    assert "using 7 threads" in server.output
    assert server.process.poll() is None
    assert server.process.pid == pid
    if front == "nginx":
        assert server.nginx == nginx
        until(lambda: nginx_processes(server) == 3, "a master and its two workers")


def nginx_processes(server: Fronted) -> int:
    group = os.getpgid(server.nginx)
    alive = [
        stat.rpartition(")")[2].split()
        for stat in (entry.read_text() for entry in Path("/proc").glob("[0-9]*/stat") if entry.exists())
    ]
    return sum(words[2] == str(group) and words[0] not in "ZX" for words in alive)


def test_settings_hold_over_kills_and_starts_of_the_same_container_alone(
    server: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(server, "--threads", "9")
    server.end()
    server.start()
    assert server.output.count("using 9 threads") == 2
    server.send(signal.SIGTERM)
    monkeypatch.setenv(MADE, "container-2")
    server.start("--threads", "11")
    assert server.output.count("using 9 threads") == 2
    assert "using 11 threads" in server.output


def test_settings_with_which_the_server_does_not_begin_are_rolled_back_by_the_next_start(server: Fronted) -> None:
    change(server, "--threads", "9")
    order(server, "--threads", "many")
    assert server.process is not None
    assert server.process.wait(PATIENCE) != 0
    server.process = None
    server.start()
    assert server.output.count("using 9 threads") == 2
    assert not (server.private / "settings.next").exists()


def test_nginx_takes_another_configuration_without_a_stop(server: Fronted) -> None:
    nginx = server.nginx
    assert ask(server.port, "/+api", {"Host": "index.example"}).status == 421
    calls = {"devpi": lambda: ask(server.port, "/+api", {"Accept": "application/json"})}
    with never_stopping(calls) as bad:
        change(server, "--allow-host", "index.example")
        until(lambda: ask(server.port, "/+api", {"Host": "index.example"}).status == 200, "the host is known")
    assert bad == {"devpi": []}
    assert server.nginx == nginx
    change(server, "--front", "python")  # and without nginx
    assert request(server.port, "GET", "/+api")[0] == 200
    change(server, "--front", "nginx")
    assert request(server.port, "GET", "/+api")[0] == 200
    assert server.nginx not in (0, nginx)


def test_requests_under_way_are_answered_before(server: Fronted, upstream: Upstream) -> None:
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(
            lambda: [upload(server, "under-way", f"1.{n}", bytes(5 << 20), auth=server.auth_now) for n in range(4)]
        )
        change(server)
        assert len(slow.result(PATIENCE)) == 4
    page = ask(server.port, "/root/dev/+simple/under-way/", PIP)
    assert len(json.loads(page.plain)["files"]) == 4


def test_a_stop_while_the_server_begins_anew_stops_it(server: Fronted) -> None:
    for delay in (0.1, 0.7):
        order(server)
        time.sleep(delay)
        assert server.send(signal.SIGTERM) in (0, -signal.SIGTERM)
        server.start("--front", "nginx")


@pytest.mark.parametrize("rounds", [2, pytest.param(40, marks=pytest.mark.endurance)])
def test_kills_while_the_server_begins_anew_lose_nothing(server: Fronted, rounds: int) -> None:
    chance = random.Random(rounds)
    for number in range(rounds):
        filename = upload(server, "kept", f"1.{number}", os.urandom(300), auth=server.auth)
        order(server, "--threads", str(5 + number % 2))
        time.sleep(chance.uniform(0, 4))
        server.end()
        server.start("--front", "nginx")
        assert filename in ask(server.port, "/root/dev/+simple/kept/", PIP).text
        assert request(server.port, "GET", "/+api")[0] == 200


def test_without_a_server_nothing_is_ordered(server: Fronted) -> None:
    server.send(signal.SIGTERM)
    verb = (sys.executable, "-m", "deployer.server", "take", "--serverdir", str(server.serverdir))
    done = subprocess.run(verb, input=Taken(id="1").text, text=True, capture_output=True, check=False)
    assert done.returncode == 5
    assert "none runs" in done.stderr
    assert not (server.private / "settings.next").exists()
