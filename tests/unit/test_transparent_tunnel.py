"""The tunnel on real sockets: an index with plain http behind it, clients with TLS before it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployer.clients.transparent import authority
from deployer.clients.transparent.routes import Mirror
from deployer.clients.transparent.tunnel import Plan, Tunnel, _basic, wait_for
from tests.network_lab import _pump
from tests.plain_devpi import free_port
from tests.upstream import Answer, Upstream

HOST, FILES = "index.example.com", "files.example.com"
VIEW = "/root/pypi/+canonical"
PASSWORD = _basic("deployer", "word")
FILE = "/ab/demo-1.0.tar.gz"


@dataclass
class World:
    index: Upstream
    certificate: authority.Certificate
    ports: list[socket.socket] = field(default_factory=list)

    def tunnel(self, **changes: object) -> int:
        """Start one in this process; its port."""
        plan = Plan(
            server=self.index.url,
            name="root/dev",
            mirrors=(Mirror(view=VIEW, url=f"https://{HOST}/simple/", files=(FILES,)),),
            certificate=str(self.certificate.chain),
            key=str(self.certificate.key),
            roots=str(self.certificate.ca),
            token="word",
            owner=os.getpid(),
        )
        listener = socket.create_server(("127.0.0.1", 0))
        self.ports.append(listener)
        tunnel = Tunnel(plan._replace(**changes))
        threading.Thread(target=tunnel.serve, args=(listener,), daemon=True).start()
        return int(listener.getsockname()[1])

    def client(self, port: int, host: str = HOST, password: str = PASSWORD) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.certificate.ca))
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
        connection.set_tunnel(host, 443, headers={"Proxy-Authorization": password} if password else {})
        return connection


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    certificate = authority.certificate([HOST, FILES], directory=tmp_path / "kept")
    with Upstream() as index:
        made = World(index, certificate)
        yield made
        for listener in made.ports:
            listener.close()


def ask(
    client: http.client.HTTPConnection, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    client.request(method, path, headers=dict(headers or {}))
    answer = client.getresponse()
    return answer.status, answer.read()


def test_many_requests_of_one_connection_are_answered_by_the_index(world: World) -> None:
    world.index.answers[f"{VIEW}/simple/demo/"] = Answer(body=b"x" * 300_000)
    world.index.answers[f"{VIEW}/hosts/{HOST}{FILE}"] = Answer(body=b"file")
    client = world.client(world.tunnel())
    secret = {"Authorization": "Basic x", "Cookie": "y", "X-Outside-Url": "http://z", "Range": "bytes=0-3"}
    assert ask(client, "/simple/demo/", headers=secret) == (200, b"x" * 300_000)
    connection = client.sock
    assert ask(client, "/simple/demo/", "HEAD") == (200, b"")
    assert ask(client, f"{FILE}?token=1") == (200, b"file")
    assert ask(client, "/simple/missing/")[0] == 404
    assert client.sock is connection
    first = world.index.requests[0].headers
    assert not {"authorization", "cookie", "x-outside-url", "proxy-authorization"} & first.keys()
    assert (first["host"], first["range"]) == (f"127.0.0.1:{world.index.port}", "bytes=0-3")


def test_nobody_without_its_password_is_served(world: World) -> None:
    port = world.tunnel()
    for password in ("", "Basic d3Jvbmc=", f"{PASSWORD}x"):
        for host in (HOST, "other.example.com"):
            with pytest.raises(OSError, match="407"):
                ask(world.client(port, host, password), "/simple/demo/")
    plain = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    assert ask(plain, f"{world.index.url}/simple/demo/")[0] == 407
    assert world.index.requests == ()


def test_an_index_that_does_not_answer_is_named(world: World) -> None:
    status, body = ask(world.client(world.tunnel(server=f"http://127.0.0.1:{free_port()}")), "/simple/demo/")
    assert status == 502
    assert b"the index's server http://127.0.0.1:" in body


def raw(*answers: bytes, closing: bool = False) -> tuple[int, list[bytes]]:
    """A server that sends these answers in turn, on one connection or, ``closing``, on one each."""
    listener, asked = socket.create_server(("127.0.0.1", 0)), []

    def serve() -> None:
        waiting = list(answers)
        while waiting:
            connection, _ = listener.accept()
            with connection:
                while waiting:
                    data = connection.recv(65536)
                    if not data:
                        break
                    asked.append(data)
                    connection.sendall(waiting.pop(0))
                    if closing:
                        break
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1]), asked


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_answers_of_every_framing(world: World) -> None:
    port, _ = raw(
        CHUNKED + b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer: t\r\n\r\n",
        CHUNKED + b"0\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nok",
    )
    client = world.client(world.tunnel(server=f"http://127.0.0.1:{port}"))
    assert ask(client, "/simple/demo/") == (200, b"hello world")
    assert ask(client, "/simple/demo/") == (200, b"")
    assert ask(client, "/simple/demo/") == (304, b"")
    assert ask(client, "/simple/demo/") == (200, b"ok")
    port, asked = raw(*[b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"] * 3, closing=True)
    client = world.client(world.tunnel(server=f"http://127.0.0.1:{port}"))
    for _ in range(3):
        assert ask(client, "/simple/demo/") == (200, b"ok")
    assert len(asked) == 3
    port, _ = raw(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", closing=True)
    assert ask(world.client(world.tunnel(server=f"http://127.0.0.1:{port}")), "/simple/demo/") == (
        200,
        b"until the end",
    )


def test_an_answer_that_ends_early_is_no_whole_answer(world: World) -> None:
    for answer in (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", CHUNKED + b"9\r\nhalf"):
        port, _ = raw(answer, closing=True)
        with pytest.raises((http.client.HTTPException, OSError)):
            ask(world.client(world.tunnel(server=f"http://127.0.0.1:{port}")), "/simple/demo/")


def test_a_connection_that_the_server_has_closed_meanwhile_is_opened_again(world: World) -> None:
    port, asked = raw(*[b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"] * 2, closing=True)
    client = world.client(world.tunnel(server=f"http://127.0.0.1:{port}"))
    assert ask(client, "/simple/demo/") == ask(client, "/simple/demo/") == (200, b"ok")
    assert len(asked) == 2


def test_a_host_that_became_known_later_is_refused(world: World) -> None:
    mirror = {"name": "root/pypi", "url": f"https://{HOST}/simple/", "hosts": [FILES, "new.example.com"]}
    body = json.dumps({"mirrors": [mirror, {**mirror, "name": "root/other", "hosts": ["x.example.com"]}]}).encode()
    world.index.answers["/+deployer/mirrored?index=root/dev"] = Answer(body=body)
    port = world.tunnel()
    with pytest.raises(OSError, match="502"):
        ask(world.client(port, "new.example.com"), FILE)
    listening, asked = raw(b"hello")
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(f"CONNECT 127.0.0.1:{listening} HTTP/1.1\r\nProxy-Authorization: {PASSWORD}\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"anything")
        assert client.recv(1000) == b"hello"
    assert asked == [b"anything"]


def test_other_hosts_do_not_wait_for_a_server_that_hangs(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = world.tunnel(server=f"http://127.0.0.1:{silent.getsockname()[1]}")
        listening, _ = raw(b"hello")
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(
                f"CONNECT 127.0.0.1:{listening} HTTP/1.1\r\nProxy-Authorization: {PASSWORD}\r\n\r\n".encode()
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_an_upload_goes_on_while_the_upstream_sends_nothing_but_tickets(world: World) -> None:
    """It sends them unasked, after the handshake: whoever waits for an answer then waits for ever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.certificate.chain, world.certificate.key)
    body = os.urandom(2_000_000)
    with Upstream(tls=context) as upstream, Proxy(upstream.port) as proxy:
        upstream.answers["/other"] = Answer(body=body)
        client = world.client(world.tunnel(chain=f"http://127.0.0.1:{proxy.port}"))
        client.putrequest("POST", "/legacy/")
        client.putheader("Content-Length", str(len(body)))
        client.putheader("Authorization", "Basic own")
        client.endheaders()
        time.sleep(0.3)  # so that the tickets are there first
        for start in range(0, len(body), 500_000):
            client.send(body[start : start + 500_000])
        assert client.getresponse().read() == b"taken\n"
        (posted,) = upstream.requests
        assert (posted.path, posted.body, posted.headers["authorization"]) == ("/legacy/", body, "Basic own")
        client.close()
        assert ask(client, "/other") == (200, body)
        assert world.index.requests == ()
        # A file that the index does not have.
        upstream.answers[FILE] = Answer(body=b"newer")
        client.close()
        assert ask(client, FILE) == (200, b"newer")
        assert world.index.requests[-1].path == f"{VIEW}/hosts/{HOST}{FILE}"
    assert proxy.asked == [f"{HOST}:443"] * 3


class Proxy:
    """A proxy for CONNECT, whatever the host is, to one port of this machine."""

    def __init__(self, to: int) -> None:
        self._to, self.asked = to, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        head = client.recv(65536).decode()
        self.asked.append(head.split()[1])
        with client, socket.create_connection(("127.0.0.1", self._to)) as other:
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            _pump(client, other)


def test_plain_http_is_passed_on_with_and_without_a_proxy(world: World) -> None:
    world.index.answers["/x?y"] = Answer(body=b"plain")
    host, sent = f"127.0.0.1:{world.index.port}", {"Proxy-Authorization": PASSWORD, "Authorization": "Basic own"}
    client = http.client.HTTPConnection("127.0.0.1", world.tunnel(), timeout=30)
    assert ask(client, f"http://{host}/x?y", headers=sent) == (200, b"plain")
    assert world.index.requests[0].headers["authorization"] == "Basic own"
    assert "proxy-authorization" not in world.index.requests[0].headers
    port, asked = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    chained = world.tunnel(plain_chain=f"http://me:p%40ss@127.0.0.1:{port}", no_proxy="none.example.com")
    client = http.client.HTTPConnection("127.0.0.1", chained, timeout=30)
    assert ask(client, "http://elsewhere.example.com/x", headers=sent) == (200, b"ok")
    assert asked[0].startswith(b"GET http://elsewhere.example.com/x HTTP/1.1\r\n")
    assert _basic("me", "p@ss").encode() in asked[0] and PASSWORD.encode() not in asked[0]


def test_clients_of_another_network_do_not_reach_this_host(world: World) -> None:
    """But for the index: those of a build in a bridge. By no name, and not through a proxy on this host either."""
    world.index.answers[f"{VIEW}/simple/demo/"] = Answer(body=b"page")
    isolated = world.tunnel(isolated=True)
    assert ask(world.client(isolated), "/simple/demo/") == (200, b"page")
    port, asked = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    chained = world.tunnel(isolated=True, chain=f"http://127.0.0.1:{port}", plain_chain=f"http://127.0.0.1:{port}")
    for tunnel in (isolated, chained):
        client = http.client.HTTPConnection("127.0.0.1", tunnel, timeout=30)
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]"):
            with pytest.raises(OSError, match="502"):
                world.client(tunnel, host).connect()
            headers = {"Proxy-Authorization": PASSWORD}
            status, body = ask(client, f"http://{host}:{world.index.port}/simple/demo/", headers=headers)
            assert (status, b"does not reach this host" in body) == (502, True)
    assert asked == []
    client = http.client.HTTPConnection("127.0.0.1", chained, timeout=30)
    assert ask(client, "http://elsewhere.example.com/x", headers=headers) == (200, b"ok")


@pytest.mark.parametrize(
    "data", [b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000, b"CONNECT : HTTP/1.1\r\n\r\n"]
)
def test_what_is_no_request_ends_its_own_connection_only(world: World, data: bytes) -> None:
    port = world.tunnel()
    # It may be closed before all is sent.
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        while client.recv(10_000):
            pass
    assert ask(world.client(port), "/simple/demo/")[0] == 404


# The process


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_ends_with_its_owner(world: World) -> None:
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    plan = Plan(
        server=world.index.url,
        name="root/dev",
        mirrors=(Mirror(view=VIEW, url=f"https://{HOST}/simple/", files=(FILES,)),),
        certificate=str(world.certificate.chain),
        key=str(world.certificate.key),
        roots=str(world.certificate.ca),
        token="word",
        owner=owner.pid,
    )
    code = "import sys; sys.path.insert(0, sys.argv[1]); from deployer.clients.transparent.tunnel import main; main()"
    words = [sys.executable, "-I", "-S", "-c", code, str(Path(__file__).parents[2])]
    # It lets go of its streams: this returns while it runs.
    done = subprocess.run(words, input=plan.encoded, capture_output=True, timeout=60, check=True)
    port = int(done.stdout)
    assert ask(world.client(port), "/simple/demo/")[0] == 404
    owner.kill()
    owner.wait()
    until(lambda: not _listens(port))


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_waiting_without_descriptors_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    owner = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    waiting = threading.Thread(target=wait_for, args=(owner.pid,), daemon=True)
    waiting.start()
    owner.kill()
    owner.wait()
    waiting.join(60)
    assert not waiting.is_alive()
    wait_for(owner.pid)
