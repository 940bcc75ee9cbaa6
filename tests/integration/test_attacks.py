"""Anonymous clients who take all that they can get: whoever comes meanwhile is answered, within PATIENCE.

Every attack comes from the address of those who are to be answered, which is the worst case: engines and proxies show
the server one address for many clients. SECURITY.md lists the bounds.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import json
import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.contained import Contained
from tests.front import PIP, ask, form, need_nginx
from tests.hostile import Answer, HostileServer, always
from tests.indexed_server import at_once, upload
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

BIG = make_wheel("big", "1.0", files={"big.bin": bytes(range(256)) * 64 * 1024})  # 16 MiB
SMALL = make_wheel("small", "1.0")
USER, PASSWORD = "ann", "a password that somebody chose"
FRONTS = [
    pytest.param("nginx", marks=pytest.mark.server),
    pytest.param("python", marks=pytest.mark.server),
    pytest.param("docker", marks=pytest.mark.docker),
]
Stack = contextlib.ExitStack


class Attacked:
    """A server with warm pages and files of a mirror, and a user with a chosen password."""

    def __init__(self, server: Server, upstream: Upstream) -> None:
        self.server, self.port, self.upstream = server, server.port, upstream
        auth = server.auth
        mirror = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True}
        stage = {"type": "stage", "bases": ["root/pypi"], "acl_toxresult_upload": []}
        for name, config in (("root/pypi", mirror), ("root/dev", stage)):
            assert request(self.port, "PUT", f"/{name}", body=config, headers=auth)[0] == 200
        assert request(self.port, "PUT", f"/{USER}", body={"password": PASSWORD}, headers=auth)[0] == 201
        self.auth = auth
        self.big, self.small = self.file("big"), self.file("small")
        self.works()

    def file(self, project: str) -> str:
        """The path of a project's file, which is stored from then on."""
        page = f"/root/dev/+simple/{project}/"
        told = json.loads(ask(self.port, page, PIP).plain)
        path = urljoin(page, urlsplit(told["files"][0]["url"]).path)
        assert ask(self.port, path).status == 200
        until(lambda: (self.server.serverdir / "+files" / path[1:]).exists(), f"{path} is stored")
        return path

    def works(self) -> None:
        """What must be answered under each attack."""
        assert "small-1.0" in ask(self.port, "/root/dev/+simple/small/", PIP).text
        assert ask(self.port, self.small).body == SMALL.content
        assert request(self.port, "GET", "/+api")[0] == 200
        assert self.login(PASSWORD) == 200
        assert request(self.port, "POST", "/+login", body={"user": "root", "password": self.server.password})[0] == 200

    def login(self, password: str) -> int:
        return request(self.port, "POST", "/+login", body={"user": USER, "password": password})[0]

    def open(self, stack: Stack, *lines: str, body: bytes = b"") -> socket.socket:
        """A connection on which a request is sent and nothing read."""
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", self.port))
        with contextlib.suppress(ConnectionError):
            client.sendall("".join(f"{line}\r\n" for line in lines).encode() + body)
        return client

    def get(self, stack: Stack, path: str, *headers: str) -> socket.socket:
        return self.open(stack, f"GET {path} HTTP/1.1", "Host: localhost", *headers, "")

    def spooled(self) -> int:
        """Bytes of temporary files that the server and its nginx have open, named or not."""
        found: dict[tuple[int, int], int] = {}
        for process in family(self.server):
            for descriptor in Path(f"/proc/{process}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    name, told = str(descriptor.readlink()), descriptor.stat()
                    if re.match(rf"{re.escape(str(self.server.private))}(/run/|/tmp/|.*\(deleted\)$)", name):
                        found[told.st_dev, told.st_ino] = told.st_size
        return sum(found.values())

    @property
    def peak(self) -> int:
        """The most memory that the server has had, in bytes; 0 in a container, whose limit is small."""
        if self.server.process is None:
            return 0
        told = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", told)[0]) * 1024


def family(server: Server) -> list[str]:
    """A process and all that it started."""
    assert server.process is not None
    found = [str(server.process.pid)]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += children.read_text().split()
    return found


def request_json(port: int, path: str) -> dict[str, object]:
    return dict(request(port, "GET", path)[1])


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Iterator[None]:
    """A crowd of clients needs more open files than is usual."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096 if hard < 0 else min(4096, hard)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([BIG, SMALL]) as running:
        yield running


@pytest.fixture(scope="module", params=FRONTS)
def attacked(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    upstream.faults.hang = False
    if request.param == "docker":
        container: Contained = request.getfixturevalue("container")
        made = Attacked(container.emptied(), upstream)
        assert str(request_json(made.port, "/+deployer")["front"]).startswith("nginx")
        runs = container.run_of_it()
        yield made
        assert container.run_of_it() == runs, "it was killed, for its memory or otherwise"
        return
    if request.param == "nginx":
        need_nginx()
    server = Server(tmp_path_factory.mktemp("attacked") / "server")
    try:
        server.start("--front", request.param, "--request-timeout", "15")
        yield Attacked(server, upstream)
    finally:
        server.end()


@pytest.fixture
def alone(attacked: Attacked) -> Attacked:
    """A server that is a process of this host, whose memory and files can be measured."""
    if isinstance(attacked.server, Contained):
        pytest.skip("measured on the other engine")
    return attacked


# The disk


@pytest.mark.parametrize(
    "how",
    [
        ("Content-Length: 60000000",),
        ("Content-Length: 60000000", "Authorization: Basic cm9vdDp3cm9uZw=="),
        ("Content-Length: 60000000", "X-Devpi-Auth: cm9vdDp3cm9uZw=="),
        ("Transfer-Encoding: chunked",),
        ("Content-Length: 60000000", "Expect: 100-continue"),
    ],
    ids=lambda how: how[-1].partition(":")[0],
)
@pytest.mark.parametrize("path", ["/root/dev/", "/root/dev/+simple/small/", "/+login"])
def test_a_body_of_nobody_is_kept_nowhere(alone: Attacked, how: tuple[str, ...], path: str) -> None:
    block = bytes(1 << 16)
    piece = b"10000\r\n" + block + b"\r\n" if "Transfer-Encoding: chunked" in how else block
    with Stack() as stack:
        crowd = [alone.open(stack, f"POST {path} HTTP/1.1", "Host: localhost", *how, "") for _ in range(20)]
        for client in crowd:
            client.setblocking(False)
        for _ in range(30):
            for client in crowd:
                with contextlib.suppress(OSError):
                    client.sendall(piece)
            assert alone.spooled() < 2**20
        alone.works()


def test_a_body_of_nobody_is_refused_and_one_of_a_user_is_taken(attacked: Attacked) -> None:
    headers, body = form({":action": "file_upload", "name": "mine", "version": "1.0"}, "mine-1.0.zip", bytes(3 << 20))
    for more, status in (({}, 401), ({"Authorization": "Basic cm9vdDp3cm9uZw=="}, 401), (basic(attacked), 200)):
        assert ask(attacked.port, "/root/dev/", {**headers, **more}, method="POST", body=body).status == status
    chunks = iter([body[:100], body[100:]])
    connection = http.client.HTTPConnection("127.0.0.1", attacked.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("POST", "/root/dev/", chunks, {**headers, **basic(attacked)}, encode_chunked=True)
        assert connection.getresponse().status == 200


def basic(attacked: Attacked) -> Mapping[str, str]:
    pair = base64.b64encode(f"root:{attacked.server.password}".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def test_who_may_upload_without_a_login_still_may(attacked: Attacked) -> None:
    stage = {"type": "stage", "bases": [], "acl_upload": [":ANONYMOUS:"], "volatile": True}
    assert request(attacked.port, "PUT", "/root/open", body=stage, headers=attacked.auth)[0] == 200
    wheel = make_wheel("theirs", "1.0", files={"a": bytes(100_000)})
    assert upload(attacked.server, {}, "root/open", wheel) == 200
    assert upload(attacked.server, {}, "root/dev", wheel) == 401


@pytest.mark.parametrize("spelling", ["{}?a={}", "{}?{}", "/{}?{}", "{}%3F{}"])
def test_who_reads_a_file_slowly_by_another_address_fills_no_disk(alone: Attacked, spelling: str) -> None:
    before = alone.spooled()  # uploads that were taken, until the garbage collector closes them
    with Stack() as stack:
        for number in range(100):
            alone.get(stack, spelling.format(alone.big, number))
        time.sleep(2)
        assert alone.spooled() - before < 2**20
        alone.works()


# Connections


@pytest.mark.parametrize("clients", [300, 700])
def test_who_reads_slowly_does_not_take_all_connections(attacked: Attacked, clients: int) -> None:
    with Stack() as stack:
        for _ in range(clients):
            attacked.get(stack, attacked.big)
        attacked.works()


def test_half_a_request_does_not_take_all_connections(attacked: Attacked) -> None:
    with Stack() as stack:
        for number in range(700):
            if number % 2:
                attacked.open(stack, "GET /+api HTTP/1.1", "X-Half: ")
            else:
                attacked.open(stack, "POST /+login HTTP/1.1", "Host: localhost", "Content-Length: 9000", "", "begun")
        attacked.works()


# Threads


def test_wrong_logins_do_not_take_all_threads(attacked: Attacked) -> None:
    attacked.works()  # the right password is known from now on
    over, statuses = threading.Event(), set()

    def attack(number: int) -> None:
        wrong = 0
        while not over.is_set():
            wrong += 1
            statuses.add(attacked.login(f"{number} {wrong}"))

    crowd = [threading.Thread(target=attack, args=(number,), daemon=True) for number in range(80)]
    for one in crowd:
        one.start()
    try:
        until(lambda: {401, 503} <= statuses, f"some are refused, and some not even looked at: {statuses}")
        for _ in range(3):
            attacked.works()
    finally:
        over.set()
        for one in crowd:
            one.join()
    assert statuses == {401, 503}


def test_who_reads_a_cold_file_slowly_does_not_take_all_threads(attacked: Attacked) -> None:
    name = f"cold{attacked.port}"
    attacked.upstream.distributions.append(make_wheel(name, "1.0", files={"a": os.urandom(4 << 20)}))
    page = f"/root/dev/+simple/{name}/"
    told = json.loads(ask(attacked.port, page, PIP).plain)
    path = urljoin(page, urlsplit(told["files"][0]["url"]).path)
    with Stack() as stack:
        for _ in range(260):
            attacked.get(stack, path)
        attacked.works()


@pytest.mark.parametrize(
    "view",
    [
        "GET /root/dev/{}/1.0",
        "GET /root/dev/{}/latest",
        "GET /root/pypi/{}/stable",
        "GET /root/dev/same/{}",
        "GET /root/dev/{}",
        "GET /root/dev/+simple/{}",
        "GET /root/dev/+simple/{}/",
        "GET /+deployer/names?index=root/dev&name={}",
        "POST /root/pypi/+simple/{}/refresh",
    ],
)
def test_no_view_lets_a_silent_upstream_take_all_threads(attacked: Attacked, view: str) -> None:
    method, path = view.split()
    headers = ["Accept: application/json", "Content-Length: 0"]
    if method == "POST":
        headers.append(f"X-Devpi-Auth: {attacked.auth['X-Devpi-Auth']}")
    attacked.upstream.faults.hang = True
    try:
        with Stack() as stack:
            for number in range(120):
                asked = path.format(f"{view.count('/')}x{len(view)}x{number}")
                attacked.open(stack, f"{method} {asked} HTTP/1.1", "Host: localhost", *headers, "")
            attacked.works()
    finally:
        attacked.upstream.faults.hang = False
        attacked.upstream.stopping.set()  # those that hang are let go
        attacked.upstream.stopping.clear()


def test_one_request_has_few_names(attacked: Attacked) -> None:
    names = "".join(f"&name=few{number}" for number in range(150))
    answer = request(attacked.port, "GET", f"/+deployer/names?index=root/dev{names}")[1]
    assert len(answer["projects"]) <= 100
    assert answer["left_out"] == 150 - len(answer["projects"])


# Memory


def endless(head: str, piece: bytes) -> Answer:
    def answer(_request: bytes) -> Iterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode()
        while True:
            yield piece

    return answer


def bomb() -> Answer:
    body = gzip.compress(bytes(400 << 20), 9)
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return always(head.encode() + body)


@pytest.mark.parametrize(
    "make",
    [
        bomb,
        lambda: endless("Content-Type: text/html", bytes(1 << 16)),
        lambda: endless("Content-Type: text/html\r\nLocation: /simple/more/", bytes(1 << 16)),
    ],
    ids=["gzip", "endless", "redirect"],
)
def test_a_page_of_any_size_takes_little_memory(attacked: Attacked, make: Callable[[], Answer]) -> None:
    if isinstance(attacked.server, Contained):
        pytest.skip("several large pages at once may end in an OOM kill of a container of 256 MiB (SECURITY.md)")
    with HostileServer(make()) as hostile:
        name = f"root/h{hostile.port}"
        mirror = {"type": "mirror", "mirror_url": f"{hostile.url}/simple/", "mirror_no_project_list": True}
        assert request(attacked.port, "PUT", f"/{name}", body=mirror, headers=attacked.auth)[0] == 200
        before = attacked.peak
        answers = at_once(attacked.port, [(f"/{name}/+simple/p{number}/", PIP) for number in range(6)])
        assert {got.status for got in answers} <= {502, 503}
        assert attacked.peak - before < 200 << 20
        attacked.works()


# Hosts


@pytest.fixture(scope="module", params=["nginx", "python"])
def named(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Attacked]:
    if request.param == "nginx":
        need_nginx()
    server = Server(tmp_path_factory.mktemp("named") / "server")
    try:
        more = ("--allow-host", "Index.Example", "--outside-url", "https://pypi.example:8443/devpi")
        server.start("--front", request.param, *more)
        yield Attacked(server, upstream)
    finally:
        server.end()


def paths(named: Attacked) -> tuple[str, ...]:
    return "/+api", "/root/dev/+simple/small/", named.small, "/", "/+deployer", "/nothing/here"


@pytest.mark.server
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{}", "127.0.0.1.evil.example", "localhost.evil.example"]
)
def test_no_web_site_reads_this_server_by_its_own_name(named: Attacked, host: str) -> None:
    for path in paths(named):
        for more in ({}, {"X-Outside-URL": "http://localhost"}, {"X-Forwarded-Host": "localhost"}):
            answer = ask(named.port, path, {**PIP, "Host": host.format(named.port), **more})
            assert (answer.status, answer.text.count("\n")) == (421, 1)
            assert "network.hosts" in answer.text


@pytest.mark.server
@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1:{}",
            "localhost",
            "LOCALHOST:{}",
            "[::1]:{}",
            "[::1]",
            "192.0.2.7",
            "devpi:3141",
            "a.localhost",
            "",
        ),
        *("index.example", "INDEX.example.:{}", "pypi.example:8443", socket.gethostname()),
    ],
)
def test_this_server_is_read_by_its_own_names(named: Attacked, host: str) -> None:
    for path in paths(named):
        assert ask(named.port, path, {**PIP, "Host": host.format(named.port)}).status != 421
