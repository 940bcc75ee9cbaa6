"""What an upload token, an upload and a path can do to the server, and to whoever looks at what was uploaded."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin

import pytest

from tests.indexed_server import FILE, HTML, JSON, Got, get
from tests.server_process import Server, request
from tests.uploads import HOSTILE, PAGE, archive, documentation, post
from tests.upstream import make_wheel

pytestmark = pytest.mark.server

BROWSER = {"Accept": "text/html", "User-Agent": "Mozilla/5.0"}
LONG = "a" * 300


@pytest.fixture(scope="module", params=["6 nginx", "6 python", "7 nginx"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the web pages, an index ``root/dev``, and documentation of ``demo`` 1.0."""
    version, front = request.param.split()
    running = Server(tmp_path_factory.mktemp("attacked") / "data")
    if version == "7":
        running.python = request.getfixturevalue("python7")
    front_of = () if front == "nginx" else ("--front", "python")
    try:
        running.start("--web", "devpi-web", *front_of)
        prepare(running)
        yield running
    finally:
        running.end()


def prepare(server: Server) -> None:
    auth = server.auth
    stage = "stage" if server.python == sys.executable else "local"  # devpi-server 7
    status, answer = request(server.port, "PUT", "/root/dev", body={"type": stage, "bases": []}, headers=auth)
    assert status == 200, answer
    form = {":action": "submit", "name": "demo", "version": "1.0", "home_page": "javascript:alert(1)"}
    assert post(server.port, auth, "root/dev", form, {})[0] == 200
    good = archive(("index.html", PAGE), ("logo.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>"))
    assert documentation(server.port, auth, good) == (200, "OK")


def docs(server: Server, path: str, **headers: str) -> Got:
    return get(server.port, f"/root/dev/demo/1.0/+doc/{path}", {**BROWSER, **headers})


def answers(server: Server) -> None:
    """It still serves what it served, and no request of the test ended in a traceback."""
    assert docs(server, "index.html").status == 200
    assert "Traceback" not in server.output


# Archives


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused_and_nothing_is_written(server: Server, name: str) -> None:
    status, reason = documentation(server.port, server.auth, HOSTILE[name], version="6.6.6")
    assert (status, reason.partition(":")[0]) == (400, "documentation is refused")
    assert not list(server.serverdir.parent.rglob("PWN"))
    assert get(server.port, "/root/dev/demo/6.6.6/+doc/index.html", BROWSER).status == 404
    answers(server)


@pytest.mark.parametrize("name", ["a name that leads up", "300 MB out of 306 kB", "no archive"])
def test_a_hostile_archive_that_is_stored_already_is_not_read(server: Server, name: str) -> None:
    version = f"9.{list(HOSTILE).index(name)}"
    stored = archive(("index.html", PAGE), ("other.html", PAGE))
    assert documentation(server.port, server.auth, stored, version=version) == (200, "OK")
    (path,) = (server.serverdir / "+files").rglob(f"demo-{version}.doc.zip")
    path.write_bytes(HOSTILE[name])
    for view in ("+doc", "+d"):
        assert get(server.port, f"/root/dev/demo/{version}/{view}/other.html", BROWSER).status == 404
    assert not list(server.serverdir.parent.rglob("PWN"))
    assert request(server.port, "DELETE", f"/root/dev/demo/{version}", headers=server.auth)[0] == 200
    answers(server)


def test_nothing_of_an_archive_is_extracted(server: Server) -> None:
    answers(server)
    assert not list(server.serverdir.rglob("*.svg"))


@pytest.mark.parametrize("up", ["../", "%2e%2e/", "..%2f", "%2e%2e%2f"])
@pytest.mark.parametrize("depth", range(1, 8))
def test_no_file_of_the_server_is_sent_as_documentation(server: Server, up: str, depth: int) -> None:
    for target in (".deployer/root-password", ".nodeinfo", "etc/passwd"):
        for view in ("+doc", "+d"):
            got = get(server.port, f"/root/dev/demo/1.0/{view}/{up * depth}{target}", BROWSER)
            assert got.status in (400, 404)  # 400: nginx, of a path above its root
            assert server.password.encode() not in got.body
    answers(server)


def test_metadata_of_a_wheel_that_expands_is_not_read(server: Server) -> None:
    wheel = archive(("bomb-1.0.dist-info/METADATA", bytes(300 << 20)))
    assert len(wheel) < 310_000
    form = {":action": "file_upload", "name": "bomb", "version": "1.0"}
    name = "bomb-1.0-py3-none-any.whl"
    assert post(server.port, server.auth, "root/dev", form, {"content": (name, wheel)})[0] == 200
    page = json.loads(get(server.port, "/root/dev/+simple/bomb/", JSON).body)
    assert [file["filename"] for file in page["files"]] == [name]
    assert not page["files"][0].get("core-metadata")
    answers(server)


def test_documentation_is_found_by_the_search(server: Server) -> None:
    deadline = time.monotonic() + 60
    while b"demo" not in (got := get(server.port, "/+search?query=findable", BROWSER)).body:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert got.status == 200
    answers(server)


# Names


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *((LONG, "1.0"), ("demo", LONG), ("", "1.0"), ("demo", "1.0\0"), ("demo", "a/b"), ("demo", "..")),
        *(("../x", "1.0"), ("+doc", "1.0"), ("demo\N{CYRILLIC SMALL LETTER A}", "1.0"), ("de mo", "1"), ("-", "1")),
    ],
)
@pytest.mark.parametrize("action", ["submit", "file_upload", "doc_upload"])
def test_odd_names_are_refused_without_a_traceback(server: Server, name: str, version: str, action: str) -> None:
    content = {"content": (f"{name}-{version}.tar.gz", b"x")} if action != "submit" else {}
    form = {":action": action, "name": name, "version": version}
    assert post(server.port, server.auth, "root/dev", form, content)[0] == 400
    answers(server)


@pytest.mark.parametrize(
    "filename",
    [
        *("", "x", ".", "..", "../demo-1.0.tar.gz", "a/demo-1.0.tar.gz", "..\\demo-1.0.tar.gz", "demo-1.0.tar.gz\x01"),
        *("dem\N{CYRILLIC SMALL LETTER O}-1.0.tar.gz", f"demo-1.0-{LONG}.whl", "demo-1.0 .tar.gz"),
    ],
)
def test_odd_file_names_are_refused_without_a_traceback(server: Server, filename: str) -> None:
    form = {":action": "file_upload", "name": "demo", "version": "1.0"}
    assert post(server.port, server.auth, "root/dev", form, {"content": (filename, b"x")})[0] == 400
    answers(server)


def test_odd_forms_are_refused_without_a_traceback(server: Server) -> None:
    release = {"name": "demo", "version": "1.0"}
    for action in ("file_upload", "doc_upload"):
        for extra, files in (({}, {}), ({"content": "text"}, {}), ({}, {"summary": ("x", b"y")})):
            form = {":action": action, **release, **extra}
            assert post(server.port, server.auth, "root/dev", form, files)[0] == 400
    for form in ({":action": "file_upload"}, {":action": "none", **release}, {":action": "submit", "name": "demo"}):
        assert post(server.port, server.auth, "root/dev", form, {})[0] == 400
    answers(server)


PATHS = (
    *(f"/root/dev/+simple/{LONG}/", f"/root/dev/{LONG}", f"/root/dev/{LONG}/1.0", f"/root/{LONG}", f"/{LONG}"),
    *(f"/root/dev/demo/{LONG}", f"/root/dev/demo/1.0/+doc/{LONG}", f"/root/dev/demo/1.0/+d/{LONG}"),
    *(f"/root/dev/demo/1.0/+toxresults/{LONG}", "/root/dev/demo/1.0/+toxresults/a/b"),
    *(f"/root/dev/+f/abc/abcdefabcdefa/{LONG}", f"/root/dev/+e/{LONG}", "/root/dev/+f/abc", "/root/dev/+e/"),
    *("/root/dev/demo/1.0/+doc/a%00b", "/root/dev/%00/1.0", "/root/dev/+f/a%00/b/c", "/+search?query=a&page=x"),
)


@pytest.mark.parametrize("path", PATHS)
def test_odd_paths_are_answered_without_a_traceback(server: Server, path: str) -> None:
    for headers in (BROWSER, JSON, HTML):
        assert get(server.port, path, headers).status in (400, 404)
    answers(server)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "PATCH"])
def test_odd_paths_of_writes_are_answered_without_a_traceback(server: Server, method: str) -> None:
    for path in (f"/{LONG}", f"/root/{LONG}", f"/root/dev/{LONG}", f"/root/dev/{LONG}/refresh"):
        assert request(server.port, method, path, body={}, headers=server.auth)[0] in (400, 404)
    answers(server)


# Browsers


def test_documentation_runs_no_scripts(server: Server) -> None:
    got = docs(server, "index.html")
    assert (got.body, got.headers["content-type"]) == (PAGE, "text/html; charset=UTF-8")
    directives = {words[0]: words[1:] for words in map(str.split, got.headers["content-security-policy"].split(";"))}
    assert "allow-scripts" not in directives["sandbox"]
    assert directives["default-src"] == ["'none'"]
    assert "script-src" not in directives
    assert docs(server, "logo.svg").headers["content-security-policy"] == got.headers["content-security-policy"]
    assert docs(server, "index.html", **{"If-None-Match": got.headers["etag"]}).status == 304


def test_pages_run_the_scripts_of_devpi_web_only(server: Server) -> None:
    got = get(server.port, "/root/dev/demo/1.0/+d/index.html", BROWSER)
    assert (got.status, got.headers["x-content-type-options"]) == (200, "nosniff")
    allowed = next(part.split() for part in got.headers["content-security-policy"].split(";") if "script-src" in part)
    inline = re.findall(rb'<script type="text/javascript">(.*?)</script>', got.body, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in inline]
    assert allowed == ["script-src", "'self'", *hashes]
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "path", ["/", "/root/dev", "/root/dev/demo/1.0", "/root/dev/demo", "/+search?query=x", "/none"]
)
def test_no_page_follows_a_javascript_link(server: Server, path: str) -> None:
    policy = get(server.port, path, BROWSER).headers["content-security-policy"]
    scripts = next(part for part in policy.split(";") if "script-src" in part)
    assert "unsafe" not in scripts
    answers(server)


def test_files_are_not_run_by_a_browser(server: Server) -> None:
    wheel = make_wheel("plain", "1.0")
    form = {":action": "file_upload", "name": "plain", "version": "1.0"}
    assert post(server.port, server.auth, "root/dev", form, {"content": (wheel.filename, wheel.content)})[0] == 200
    page = json.loads(get(server.port, "/root/dev/+simple/plain/", JSON).body)
    base = "/root/dev/+simple/plain/"
    for accept in (FILE, BROWSER):
        got = get(server.port, urljoin(base, page["files"][0]["url"]), accept)
        assert (got.status, got.body) == (200, wheel.content)
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "html" not in got.headers["content-type"]
    assert get(server.port, base, {**HTML}).headers["x-content-type-options"] == "nosniff"


class _Pages(BaseHTTPRequestHandler):
    """An upstream that sends every file as a page, and names no hash."""

    def do_GET(self) -> None:
        listed = b'<a href="/files/evil-1.0.tar.gz">evil-1.0.tar.gz</a><a href="/files/evil-1.0.zip">evil-1.0.zip</a>'
        body = {"/simple/": b'<a href="evil/">evil</a>', "/simple/evil/": listed}.get(self.path, PAGE)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def pages() -> Iterator[str]:
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), _Pages)
    threading.Thread(target=upstream.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{upstream.server_port}/simple/"
    upstream.shutdown()
    upstream.server_close()


def test_a_page_of_an_upstream_is_no_page_of_ours(server: Server, pages: str) -> None:
    kind, url = ("remote", "remote_url") if server.python != sys.executable else ("mirror", "mirror_url")
    body = {"type": kind, url: pages}
    assert request(server.port, "PUT", "/root/evil", body=body, headers=server.auth)[0] == 200
    listed = json.loads(get(server.port, "/root/evil/+simple/evil/", JSON).body)["files"]
    assert {file["filename"] for file in listed} == {"evil-1.0.tar.gz", "evil-1.0.zip"}
    for file in listed:
        path = urljoin("/root/evil/+simple/evil/", file["url"])
        assert "/+e/" in path
        got = get(server.port, path, BROWSER)  # no archive begins like a page
        assert (got.status, PAGE in got.body, got.headers["x-content-type-options"]) == (502, False, "nosniff")
        assert got.headers["content-type"] == "text/plain; charset=utf-8"
    assert request(server.port, "DELETE", "/root/evil", headers=server.auth)[0] in (200, 201)
