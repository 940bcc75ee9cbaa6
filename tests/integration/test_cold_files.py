"""Files that are not here yet: downloaded once, whoever asks and whoever hangs up, and stored only when whole."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.contained import PROCESS
from tests.indexed_server import FILE, JSON, PATIENCE, at_once, get, make_indexes, upload
from tests.server_process import Server
from tests.upstream import Distribution, Upstream, make_wheel

BIG = make_wheel("big", "1.0", files={"big.bin": bytes(range(256)) * 16 * 1024})  # 4 MiB


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([BIG]) as running:
        running.faults.path = "/files/"
        yield running


@pytest.fixture
def server(anywhere: Server, upstream: Upstream) -> Server:
    running = anywhere.start("--request-timeout", "10", "--front", "python")
    make_indexes(running.port, running.auth, upstream)
    return running


def path_of(server: Server, wheel: Distribution) -> str:
    """Where the page says that the file is."""
    page = f"/root/dev/+simple/{wheel.project}/"
    told = json.loads(get(server.port, page, JSON).body)
    (url,) = [file["url"] for file in told["files"] if file["filename"] == wheel.filename]
    return urljoin(page, url)


def stored(server: Server, path: str) -> Path:
    return server.serverdir / "+files" / path[1:]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.server
def test_files_that_come_faster_than_they_are_stored_open_few_descriptors(tmp_path: Path) -> None:
    """Clients have a file before it is stored: each one that waited for its commit held a thread and two open files."""
    many = [make_wheel(f"many-{number % 4}", f"1.{number}") for number in range(600)]
    server = Server(tmp_path / "data")
    with Upstream(many) as upstream:
        try:
            server.start("--front", "python")
            make_indexes(server.port, server.auth, upstream)
            paths = [
                urljoin(page, file["url"]).partition("#")[0]
                for page in {f"/root/dev/+simple/{one.project}/" for one in many}
                for file in json.loads(get(server.port, page, JSON).body)["files"]
            ]
            before, open_files = descriptors(server), []
            with ThreadPoolExecutor(8) as pool:
                for status in pool.map(lambda path: get(server.port, path, FILE).status, paths):
                    assert status == 200
                    open_files.append(descriptors(server))
            assert len(paths) == len(many)
            assert max(open_files) - before < 300
            wait_until(lambda: all(stored(server, path).exists() for path in paths))
        finally:
            server.end()


def descriptors(server: Server) -> int:
    assert server.process is not None
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("clients", [8, 32])
def test_all_who_ask_get_it_by_one_download(server: Server, upstream: Upstream, clients: int) -> None:
    upstream.faults.bandwidth = 4 * 2**20
    path = path_of(server, BIG)
    answers = at_once(server.port, [(path, FILE)] * clients)
    assert {got.status for got in answers} == {200}
    assert all(got.body == BIG.content for got in answers)
    assert upstream.files(BIG.filename) == 1
    wait_until(stored(server, path).exists)
    assert stored(server, path).read_bytes() == BIG.content
    assert get(server.port, path, FILE).body == BIG.content
    assert upstream.files(BIG.filename) == 1


def test_clients_are_sent_what_is_there_before_the_rest_comes(server: Server, upstream: Upstream) -> None:
    upstream.faults.bandwidth = 2**20
    path = path_of(server, BIG)
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(3)]
    try:
        for connection in connections:
            connection.request("GET", path, headers=FILE)
            answer = connection.getresponse()
            assert int(answer.headers["Content-Length"]) == len(BIG.content)
            assert answer.read(100_000) == BIG.content[:100_000]
            assert not stored(server, path).exists()
    finally:
        for connection in connections:
            connection.close()
    # All of them hung up: the download goes on.
    wait_until(stored(server, path).exists)
    assert get(server.port, path, FILE).body == BIG.content
    assert upstream.files(BIG.filename) == 1


def test_probes_start_the_one_download_and_no_other(server: Server, upstream: Upstream) -> None:
    upstream.faults.bandwidth = 4 * 2**20
    path = path_of(server, BIG)
    head = get(server.port, path, FILE, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(BIG.content)
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as probe:
        probe.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=-1000\r\n\r\n".encode())
        assert b" 200 " in probe.recv(1000).partition(b"\r\n")[0] + b" "
    assert get(server.port, path, FILE).body == BIG.content
    assert upstream.files(BIG.filename) == 1


def test_a_download_that_breaks_off_is_short_for_all_and_not_kept(server: Server, upstream: Upstream) -> None:
    upstream.faults.bandwidth = 4 * 2**20
    upstream.faults.short_body = True
    path = path_of(server, BIG)
    answers = at_once(server.port, [(path, FILE)] * 8)
    assert not any(got.whole for got in answers)
    assert all(BIG.content.startswith(got.body) for got in answers)
    assert upstream.files(BIG.filename) == 1
    assert not stored(server, path).exists()
    upstream.faults.short_body = False
    assert get(server.port, path, FILE).body == BIG.content
    wait_until(stored(server, path).exists)


def test_a_wrong_hash_is_not_kept(server: Server, upstream: Upstream) -> None:
    upstream.faults.path = "/"
    upstream.faults.wrong_hash = True
    path = path_of(server, BIG)
    assert get(server.port, path, FILE).body == BIG.content  # the client has its own look at the hash
    assert not stored(server, path).exists()


@pytest.mark.parametrize(("status", "told"), [(404, 404), (403, 502), (500, 502), (429, 502)])
def test_refusals_are_told_to_all_who_asked(server: Server, upstream: Upstream, status: int, told: int) -> None:
    upstream.faults.latency = 0.3
    upstream.faults.status = status
    path = path_of(server, BIG)
    answers = at_once(server.port, [(path, FILE)] * 8)
    assert {got.status for got in answers} == {told}
    assert upstream.files(BIG.filename) <= 2
    upstream.faults.status = 0
    assert get(server.port, path, FILE).body == BIG.content


def test_who_reads_slowly_keeps_nobody_waiting_and_gets_all(server: Server, upstream: Upstream) -> None:
    huge = make_wheel("huge", "1.0", files={"huge.bin": os.urandom(16 * 2**20)})  # more than the buffers on the way
    upstream.add(huge)
    path = path_of(server, huge)
    for _ in range(2):  # while it comes, and when it is there
        slow = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(10)]
        begun = []
        for connection in slow:
            connection.request("GET", path, headers=FILE)
            answer = connection.getresponse()
            begun.append((answer, answer.read(1000)))
        wait_until(stored(server, path).exists)
        assert get(server.port, path, FILE).body == huge.content
        assert get(server.port, "/root/dev/+simple/huge/", JSON).status == 200
        assert get(server.port, path_of(server, BIG), FILE).body == BIG.content
        for answer, start in begun:
            assert start + answer.read() == huge.content
        for connection in slow:
            connection.close()
    assert upstream.files(huge.filename) == 1


def test_a_crowd_that_waits_for_a_slow_file_keeps_nobody_else_waiting(server: Server, upstream: Upstream) -> None:
    crowd = 150  # three times the threads that devpi has
    path = path_of(server, BIG)
    upstream.faults.bandwidth = len(BIG.content) // 30
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(crowd)]
    for connection in connections:
        connection.request("GET", path, headers=FILE)
    reading = [connection.getresponse() for connection in connections]
    for _ in range(5):
        assert server.auth  # a login
        assert get(server.port, "/root/dev", {"Accept": "application/json"}).status == 200
    assert upload(server, server.auth, "root/dev", make_wheel("acme", "1.0")) == 200
    assert not stored(server, path).exists()
    upstream.faults.bandwidth = 2**30
    with ThreadPoolExecutor(crowd) as pool:
        assert all(pool.map(lambda answer: answer.read() == BIG.content, reading))
    for connection in connections:
        connection.close()
    assert upstream.files(BIG.filename) == 1


@pytest.mark.parametrize("anywhere", [PROCESS], indirect=True)  # a container has a limit: test_served_in_container
def test_memory_does_not_grow_with_the_file(server: Server, upstream: Upstream) -> None:
    large = make_wheel("large", "1.0", files={"data.bin": bytes(16 * 2**20)})
    huge = make_wheel("huge", "1.0", files={"data.bin": bytes(128 * 2**20)})
    assert get(server.port, path_of(server, BIG), FILE).status == 200
    peaks = [peak_kib(server)]
    for wheel in (large, huge):
        upstream.add(wheel)
        path = path_of(server, wheel)
        for _ in range(2):  # while it comes, and when it is there
            answers = at_once(server.port, [(path, FILE)] * 8)
            assert [len(got.body) for got in answers] == [len(wheel.content)] * 8
            wait_until(stored(server, path).exists)
        peaks.append(peak_kib(server))
    # Eight readers' buffers, and the file itself nowhere: it was 60 MiB where a socket takes four at once.
    assert peaks[1] - peaks[0] < 40 * 1024
    assert peaks[2] - peaks[1] < 48 * 1024
    assert not [path for path in server.private.iterdir() if path.stat().st_size > 2**20]


def peak_kib(server: Server) -> int:
    assert server.process is not None
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
