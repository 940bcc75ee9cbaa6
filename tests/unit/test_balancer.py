"""The balancer of a cluster on one host: real nginx, and members that answer what a test says."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployer.certificates.authority import Authority
from deployer.certificates.pair import shown
from deployer.deployment.certificate import wait_served
from deployer.protocol import LIVE_ROUTE, Refusal
from deployer.server.balance.configuration import Balanced
from deployer.server.balance.watching import Member
from tests.plain_devpi import free_port

PATIENCE = 60.0


@dataclass
class Fake:
    """A member. ``status``: of each answer; 0: it breaks the connection once it has the request.

    ``asked``: all requests but those that only look whether it is there. While ``answering`` is not set, it hangs.
    """

    name: str
    status: int = 200
    asked: list[tuple[str, str, bytes, str]] = field(default_factory=list)
    schemes: list[str] = field(default_factory=list)
    answering: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        member = self
        member.answering.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                member.answering.wait(PATIENCE)
                if self.path == LIVE_ROUTE:
                    self.send_response(200)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                member.asked.append((self.command, self.path, body, self.headers.get("X-Forwarded-For", "")))
                member.schemes.append(self.headers.get("X-Forwarded-Proto", ""))
                if not member.status:
                    self.close_connection = True
                    return
                told = f"{member.name} {self.headers['Host']}".encode()
                self.send_response(member.status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(told)

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815 - of the library

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - of the library
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.status = 0  # for connections that are kept
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Front:
    port: int
    members: Sequence[Fake]
    process: subprocess.Popen[bytes]
    config: Path

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, Any]:
        return self._ask(method, path, body, headers, PATIENCE)

    def answered(self, times: int) -> set[bytes]:
        """Which members answer so many reads; empty where one of them is not answered within two seconds."""
        try:
            return {self._ask("GET", "/x", None, {}, 2.0)[1][:1] for _ in range(times)}
        except TimeoutError:
            return set()

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float
    ) -> tuple[int, bytes, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers
        finally:
            connection.close()


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with started(tmp_path) as made:
        yield made


@contextlib.contextmanager
def started(tmp_path: Path, *more: str) -> Iterator[Front]:
    if shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip("no nginx on this host")
    members, port = [Fake(str(number)) for number in range(3)], free_port()
    words = [word for member in members for word in ("--member", f"127.0.0.1:{member.port}")]
    command = [sys.executable, "-m", "deployer.server", "balance", "--serverdir", str(tmp_path), "--primary", "1"]
    process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{port}", *words, *more])
    made = Front(port, members, process, tmp_path / "nginx.conf")
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(OSError):
                if made.ask("GET", "/+live")[:2] == (200, b"live\n"):
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        for member in members:
            with contextlib.suppress(OSError):
                member.close()


def test_reads_go_round_and_writes_go_to_the_primary(front: Front) -> None:
    answers = {front.ask("GET", "/x?y=1", Host="index.example.com")[1] for _ in range(12)}
    assert answers == {b"0 index.example.com", b"1 index.example.com", b"2 index.example.com"}
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert front.ask(method, "/a%2Fb?c", b"body", Host="h")[1] == b"1 h"
        assert front.members[1].asked[-1] == (method, "/a%2Fb?c", b"body", "127.0.0.1")


def test_a_read_goes_on_to_the_next_member(front: Front) -> None:
    first, primary, second = front.members
    first.status, second.status = 503, 0
    for _ in range(9):
        assert front.ask("GET", "/x")[1].startswith(b"1 ")
    primary.status = 502
    # All that answered say 502, or one of them is not ready.
    assert front.ask("GET", "/x")[0] in (502, 503)
    first.status = 502
    for _ in range(6):
        assert front.ask("GET", "/x")[0] == 502


def test_404_is_an_answer(front: Front) -> None:
    for member in front.members:
        member.status = 404
    assert front.ask("GET", "/x")[0] == 404
    assert sum(len(member.asked) for member in front.members) == 1


def test_members_that_are_gone_are_passed_over(front: Front) -> None:
    front.members[0].close()
    front.members[2].close()
    assert [front.ask("GET", "/x")[1][:1] for _ in range(9)] == [b"1"] * 9
    front.members[1].close()
    for method, text in (("GET", b"no member"), ("POST", b"the primary does not answer")):
        status, body, headers = front.ask(method, "/x")
        assert (status, headers["Retry-After"]) == (503, "5")
        assert body.startswith(text)
    assert front.ask("GET", "/+live")[0] == 200


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_member_that_hangs_is_left_out_until_it_answers(front: Front) -> None:
    hanging = front.members[0]
    hanging.answering.clear()
    until(lambda: f":{hanging.port} " not in front.config.read_text())
    until(lambda: front.answered(9) == {b"1", b"2"})  # nginx has been told, and may need a moment
    hanging.answering.set()
    until(lambda: f":{hanging.port} " in front.config.read_text())
    until(lambda: front.answered(9) == {b"0", b"1", b"2"})


def test_reads_leave_out_who_is_silent_and_writes_nobody() -> None:
    members = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]
    balanced = Balanced(listen="127.0.0.1:80", members=members, primary=1)

    def servers(*silent: int, gone: int = -1) -> list[str]:
        known = [
            Member(address="" if number == gone else address, silent=number in silent)
            for number, address in enumerate(members)
        ]
        text = balanced.text(known, user="", workers=1, connections=8, largest=1)
        return re.findall(r"server 127.0.0.1:([123]) ", text)

    assert servers() == ["1", "2", "3", "2"]
    assert servers(0) == ["2", "3", "2"]
    assert servers(1) == ["1", "3", "2"]
    assert servers(0, 1, 2) == ["1", "2", "3", "2"]  # it may be the balancer that hears nobody
    assert servers(0, 1, gone=2) == ["1", "2", "2"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_write_is_never_sent_twice(front: Front, method: str) -> None:
    primary = front.members[1]
    primary.status = 0  # it is killed after it has got the request
    assert front.ask(method, "/x", b"body")[0] == 503
    assert len(primary.asked) == 1
    assert not front.members[0].asked + front.members[2].asked


def test_the_chain_of_proxies_goes_on(front: Front) -> None:
    front.ask("POST", "/x", b"", **{"X-Forwarded-For": "192.0.2.1"})
    assert front.members[1].asked[-1][3] == "192.0.2.1, 127.0.0.1"


def test_a_client_does_not_say_how_it_came(front: Front) -> None:
    front.ask("POST", "/x", b"", **{"X-Forwarded-Proto": "https"})
    assert front.members[1].schemes == ["http"]


def certificate(path: Path) -> str:
    """Write a certificate with its key; its fingerprint."""
    now = datetime.now(UTC)
    authority = Authority.made(["localhost"], now, title="balancer", valid=timedelta(days=2))
    chain, key = authority.signed(["localhost"], now, valid=timedelta(days=1))
    beside = path.with_suffix(".new")
    beside.write_text(chain + key)
    beside.replace(path)
    return shown(ssl.PEM_cert_to_DER_cert(chain[: chain.index("-----END CERTIFICATE-----") + 26])).fingerprint


def test_https_is_answered_and_a_new_certificate_is_taken(tmp_path: Path) -> None:
    port, pem = free_port(), tmp_path / "given.pem"
    url, first = f"https://127.0.0.1:{port}", certificate(pem)
    with started(tmp_path, "--tls", f"127.0.0.1:{port}", "--certificate", str(pem)) as front:
        wait_served(url, first)
        with httpx.Client(base_url=url, verify=False, http2=False, trust_env=False, timeout=PATIENCE) as client:  # noqa: S501
            assert client.post("/x", content=b"body").status_code == 200
            assert (front.members[1].asked[-1][2], front.members[1].schemes) == (b"body", ["https"])
            assert client.get("/+live").text == "live\n"
            second = certificate(pem)
            assert second != first
            wait_served(url, second)
            assert client.get("/x").status_code == 200  # over the connection that it has
        assert front.ask("POST", "/x", b"")[0] == 200  # HTTP is answered at its own port
        plain = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        plain.request("GET", "/x?y", headers={"Host": f"localhost:{port}"})
        answer = plain.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, f"https://localhost:{port}/x?y")
        plain.close()


def test_https_without_a_certificate_is_refused(tmp_path: Path) -> None:
    words = ["--serverdir", str(tmp_path), "--member", "127.0.0.1:1", "--tls", "127.0.0.1:2"]
    done = subprocess.run(
        [sys.executable, "-m", "deployer.server", "balance", *words], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "HTTPS needs a certificate" in done.stderr) == (2, True)


def test_it_ends_with_its_nginx_and_nginx_with_it(front: Front) -> None:
    front.process.kill()
    front.process.wait(PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            front.ask("GET", "/+live")
        except OSError:
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_that_follows_listens_before_the_former_one_ends(front: Front, tmp_path: Path) -> None:
    words = ["--listen", f"127.0.0.1:{front.port}", "--member", f"127.0.0.1:{front.members[0].port}", "--mark", "0a"]
    directory = tmp_path / "next"
    directory.mkdir()
    command = [sys.executable, "-m", "deployer.server", "balance", "--serverdir", str(directory), *words]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + PATIENCE
        while front.ask("GET", "/+live")[2]["X-Deployer-Balancer"] != "0a":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        front.process.send_signal(signal.SIGTERM)
        front.process.wait(PATIENCE)
        assert {front.ask("GET", "/x")[1][:1] for _ in range(6)} == {b"0"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


@pytest.mark.parametrize(
    ("listen", "members", "primary"),
    [
        ("127.0.0.1:80;", ["127.0.0.1:1"], 0),
        ("127.0.0.1:80", ["example.com;:1"], 0),
        ("127.0.0.1:80", ["127.0.0.1:1"], 1),
        ("127.0.0.1:80", [], 0),
    ],
)
def test_what_nginx_would_read_in_another_way_is_refused(listen: str, members: list[str], primary: int) -> None:
    with pytest.raises(Refusal):
        Balanced(listen=listen, members=members, primary=primary)
    with pytest.raises(Refusal):
        Balanced(listen="127.0.0.1:80", members=members, primary=primary, tls=listen)
