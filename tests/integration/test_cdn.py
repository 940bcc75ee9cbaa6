"""A CDN before the server keeps files, and pages for as long as it may; nothing of what only some may read, no error,
and no answer in another format than the client's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import pytest

from tests.content_network import NginxCache, Varnish
from tests.front import need_nginx
from tests.indexed_server import FILE, HTML, JSON, Got, get, make_indexes, upload
from tests.integration.installers import INSTALLERS
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

MIRRORED, UPLOADED, SECRET = (make_wheel(name, "1.0") for name in ("mirrored", "uploaded", "secret"))
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0"}
UV = {"Accept": "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"}
PAGES = {
    "pip": JSON,
    "uv": {**UV, "User-Agent": "uv/0.9"},
    "old pip": HTML,
    "gzip": {**JSON, "Accept-Encoding": "gzip"},
    "browser": BROWSER,
    "curl": {"Accept": "*/*", "User-Agent": "curl/8"},
}
SECONDS = 3600
"""``server.cdn``: longer than the tests take."""


@dataclass(frozen=True)
class World:
    """A server, and a CDN before it."""

    server: Server
    cdn: NginxCache | Varnish
    root: dict[str, str]

    def get(self, path: str, headers: dict[str, str], method: str = "GET") -> Got:
        return get(self.cdn.port, path, headers, method)

    def file(self, page: str, headers: dict[str, str]) -> str:
        """The path of the one file on a page."""
        (file,) = json.loads(get(self.server.port, page, {**JSON, **headers}).body)["files"]
        return urlsplit(urljoin(page, file["url"])).path


def made(home: Path, upstream: Upstream, kind: type[NginxCache | Varnish], *options: str) -> Iterator[World]:
    need_nginx()
    server = Server(home / "data").start(*options)
    cdn = kind(home / "cdn", server.port)
    try:
        auth = server.auth
        make_indexes(server.port, auth, upstream)
        closed = {"type": "stage", "bases": [], "acl_read": ["root"], "volatile": True}
        dead = {"type": "mirror", "mirror_url": f"http://127.0.0.1:{free_port()}/simple/"}
        for index, body in (("root/secret", closed), ("root/dead", dead)):
            assert request(server.port, "PUT", f"/{index}", body=body, headers=auth)[0] == 200
        assert upload(server, auth, "root/dev", UPLOADED) == 200
        assert upload(server, auth, "root/secret", SECRET) == 200
        pair = base64.b64encode(f"root:{server.password}".encode()).decode()
        cdn.start()
        yield World(server, cdn, {"Authorization": f"Basic {pair}"})
    finally:
        cdn.stop()
        server.end()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.add(MIRRORED)
        yield running


@pytest.fixture(scope="module", params=[NginxCache, Varnish])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[World]:
    """With ``server.cdn``."""
    if request.param is Varnish and not Varnish.installed():
        pytest.skip("varnishd is not installed")
    yield from made(tmp_path_factory.mktemp("cdn"), upstream, request.param, "--cdn", str(SECONDS))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[World]:
    """Without."""
    yield from made(tmp_path_factory.mktemp("plain"), upstream, NginxCache)


def hit(got: Got) -> bool:
    return got.headers["x-cache"] == "HIT"


@pytest.mark.parametrize("page", ["/root/dev/+simple/uploaded/", "/root/pypi/+simple/mirrored/"])
def test_a_file_and_its_metadata_are_fetched_once(world: World, page: str) -> None:
    path = world.file(page, {})
    for suffix in ("", ".metadata"):
        first, again = (world.get(path + suffix, FILE) for _ in range(2))
        assert (first.status, hit(first), again.status, hit(again)) == (200, False, 200, True)
        assert first.body == again.body == get(world.server.port, path + suffix, FILE).body
    part = world.get(path, {**FILE, "Range": "bytes=2-5"})
    assert (part.status, part.body, hit(part)) == (206, again_of(world, path)[2:6], True)


def again_of(world: World, path: str) -> bytes:
    return world.get(path, FILE).body


def test_each_client_gets_its_own_format(world: World) -> None:
    page = "/root/dev/+simple/uploaded/"
    right = {name: get(world.server.port, page, headers) for name, headers in PAGES.items()}
    for names in (list(PAGES), list(reversed(PAGES))):
        for name in names:
            got, wanted = world.get(page, PAGES[name]), right[name]
            assert (got.status, got.body) == (200, wanted.body), name
            assert got.headers["content-type"].lower() == wanted.headers["content-type"].lower(), name
            assert got.headers.get("content-encoding") == wanted.headers.get("content-encoding"), name
    assert hit(world.get(page, JSON))
    assert hit(world.get(page, {**JSON, "User-Agent": "pip/99 of another machine"}))
    assert not hit(world.get(page, BROWSER)), "made for one browser"


def test_what_some_may_read_is_kept_for_nobody(world: World) -> None:
    page = "/root/secret/+simple/secret/"
    path = world.file(page, world.root)
    for what, headers in ((page, JSON), (path, FILE), (f"{path}.metadata", FILE)):
        for _ in range(2):
            got = world.get(what, {**headers, **world.root})
            assert (got.status, hit(got)) == (200, False)
            assert world.get(what, headers).status == 401
            assert world.get(what, {**headers, "Authorization": "Basic eDp5"}).status == 401
    for what in ("/", "/root", "/root/secret"):
        assert b"secret" in world.get(what, {**BROWSER, **world.root}).body
        assert not hit(world.get(what, BROWSER))


def test_no_error_is_kept(world: World, upstream: Upstream) -> None:
    wheel = make_wheel(f"late-{world.cdn.port}", "1.0")
    page = f"/root/dev/+simple/{wheel.project}/"
    assert [world.get(page, JSON).status for _ in range(2)] == [404, 404]
    assert upload(world.server, world.root, "root/dev", wheel) == 200
    assert world.get(page, JSON).status == 200
    path = world.file(page, {})
    gone = path.replace("-1.0", "-1.1")
    for what, headers, status in (
        (gone, FILE, 404),
        ("/root/dead/+simple/any/", JSON, 502),
        ("/root/none/+simple/any/", JSON, 404),
    ):
        answers = [world.get(what, headers) for _ in range(2)]
        assert [(got.status, hit(got)) for got in answers] == [(status, False)] * 2, what


def test_a_page_may_be_kept_for_as_long_as_the_profile_says(world: World) -> None:
    wheel = make_wheel(f"kept-{world.cdn.port}", "1.0")
    page = f"/root/dev/+simple/{wheel.project}/"
    assert upload(world.server, world.root, "root/dev", wheel) == 200
    before = [world.get(page, JSON) for _ in range(2)][1]
    assert hit(before) and before.headers["cache-control"] == f"max-age=0, must-revalidate, s-maxage={SECONDS}"
    assert upload(world.server, world.root, "root/dev", make_wheel(wheel.project, "1.1")) == 200
    assert world.get(page, JSON).body == before.body
    assert world.get(page, JSON).body != get(world.server.port, page, JSON).body


def test_without_the_key_the_next_request_sees_an_upload(plain: World) -> None:
    page = "/root/dev/+simple/uploaded/"
    for number in (2, 3):
        assert plain.get(page, JSON).headers["cache-control"] == "no-cache"
        assert not hit(plain.get(page, JSON))
        assert upload(plain.server, plain.root, "root/dev", make_wheel("uploaded", f"1.{number}")) == 200
        assert f"-1.{number}-".encode() in plain.get(page, JSON).body
    path = plain.file("/root/pypi/+simple/mirrored/", {})
    assert [hit(plain.get(path, FILE)) for _ in range(2)] == [False, True]


def test_a_cache_that_asks_again_is_told_that_nothing_changed(plain: World) -> None:
    assert isinstance(plain.cdn, NginxCache)
    page, deadline, seen = "/root/pypi/+simple/mirrored/", time.monotonic() + PATIENCE, set[str]()
    while "REVALIDATED" not in seen:
        got = get(plain.cdn.asking, page, JSON)
        assert got.status == 200 and b"mirrored-1.0" in got.body
        seen.add(got.headers["x-cache"])
        assert time.monotonic() < deadline, seen
        time.sleep(0.2)


@pytest.mark.parametrize("client", INSTALLERS)
def test_installers_install_by_way_of_it(world: World, client: str) -> None:
    index = f"http://127.0.0.1:{world.cdn.port}/root/dev/+simple/"
    for _ in range(2):
        assert INSTALLERS[client](index, "mirrored", "uploaded==1.0").succeeded


def test_pip_asks_again_and_sees_an_upload_at_once(plain: World, tmp_path: Path) -> None:
    """With pip's own cache: it keeps the page, and asks whether it is the same."""

    def newest() -> str:
        words = ("index", "versions", "--isolated", "--cache-dir", str(tmp_path / "cache"), "--no-input")
        there = f"127.0.0.1:{plain.server.port}"
        index = ("--trusted-host", there, "--index-url", f"http://{there}/root/dev/+simple/")  # else pip caches no HTTP
        command = [sys.executable, "-I", "-m", "pip", *words, *index, "asked"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout

    for version in ("1.0", "1.1"):
        assert upload(plain.server, plain.root, "root/dev", make_wheel("asked", version)) == 200
        for _ in range(2):
            assert f"asked ({version})" in newest()
    deadline, log = time.monotonic() + PATIENCE, plain.server.private / "log/access.log"
    while True:
        said = [json.loads(line) for line in log.read_text().splitlines()]
        statuses = [line["status"] for line in said if line["project"] == "asked" and line["method"] == "GET"]
        if statuses == [200, 304, 200, 304]:
            break
        assert time.monotonic() < deadline, statuses
        time.sleep(0.2)
