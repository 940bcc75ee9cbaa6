"""An index that not everybody may read shows nothing to others: each view of the server, for each kind of reader."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployer.devpi.fields import DEVPI_6, DEVPI_7, IndexCodec
from deployer.protocol import MIRRORED_ROUTE, NAMES_ROUTE, RULES_ROUTE
from tests.indexed_server import FILE, HTML, JSON, Got, get, upload
from tests.integration.installers import BESIDE
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Distribution, Upstream, make_wheel
from tests.views import documented

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "User-Agent": "Mozilla/5.0"}
API = {"Accept": "application/json"}
CANARY, MIRRORED, OPEN = (make_wheel(f"{name}canary", "1.0") for name in ("uploaded", "mirrored", "open"))
TITLE = "titlecanary"
SECRET, VAULT, ABOVE, ORDERED = "root/secret", "root/vault", "root/above", "root/ordered"
PROTECTED = {SECRET: CANARY, VAULT: MIRRORED, ABOVE: CANARY, ORDERED: MIRRORED}
"""Indexes that only alice reads, the last two because of their bases; a project that each one has."""
SHOWN = (b"uploadedcanary", b"mirroredcanary", b"titlecanary", CANARY.content[-200:], MIRRORED.content[-200:])
"""What nobody else may see."""


def basic(user: str, password: str = "") -> dict[str, str]:
    pair = f"{user}:{password or f'{user}-password'}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


READERS = {"anybody": {}, "another user": basic("bob"), "a wrong password": basic("alice", "wrong")}


@dataclass(frozen=True)
class World:
    """A running server, its upstream, and root's header."""

    server: Server
    root: Mapping[str, str]
    codec: IndexCodec

    @property
    def port(self) -> int:
        return self.server.port

    def file(self, index: str, wheel: Distribution) -> str:
        """The address of a file, as alice finds it on a page."""
        page = get(self.port, f"/{index}/+simple/{wheel.project}/", {**JSON, **basic("alice")})
        assert page.status == 200, page
        url = str(json.loads(page.body)["files"][0]["url"]).partition("#")[0]
        return "/" + url.removeprefix("../../../../") if url.startswith("../") else url

    def change(self, index: str, **fields: object) -> None:
        assert request(self.port, "PATCH", f"/{index}", body=fields, headers=self.root)[0] == 200


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        running.add(MIRRORED)
        yield running


FRONTS = {"nginx": (DEVPI_6, ()), "python": (DEVPI_7, ("--front", "python", "--web", "devpi-web"))}
"""Each front once, each version of devpi-server once, our own pages for browsers and devpi-web's."""


@pytest.fixture(scope="module", params=FRONTS)
def world(
    request: pytest.FixtureRequest, upstream: Upstream, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    codec, words = FRONTS[request.param]
    python = sys.executable if codec is DEVPI_6 else request.getfixturevalue("python7")
    server = Server(tmp_path_factory.mktemp("readers") / "server", python=python)
    server.serverdir.mkdir()
    server.start(*words)
    try:
        yield made(server, upstream, codec)
    finally:
        server.end()


def made(server: Server, upstream: Upstream, codec: IndexCodec) -> World:
    root = server.auth
    alone: dict[str, object] = {**codec.encode({"type": "stage"}), "volatile": True}
    mirror = codec.encode({"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True})
    bodies: Mapping[str, Mapping[str, object]] = {
        "alice": {"password": "alice-password"},
        "bob": {"password": "bob-password"},
        "root/public": alone,
        SECRET: {**alone, "acl_read": ["alice"], "title": TITLE},
        VAULT: {**mirror, "acl_read": ["alice"], "title": TITLE},
        ABOVE: {**alone, "bases": [SECRET], "title": TITLE},
        ORDERED: {"type": "ordered", "bases": [SECRET, VAULT], "title": TITLE},
    }
    for name, body in bodies.items():
        status, answer = request(server.port, "PUT", f"/{name}", body=body, headers=root)
        assert status in (200, 201), answer
    for index, wheel in ((SECRET, CANARY), ("root/public", OPEN)):
        assert upload(server, root, index, wheel) == 200
    return World(server, root, codec)


def addresses(view: str, index: str, wheel: Distribution, file: str) -> list[str]:
    """Requests for a view, made of its address; a part that is not known here fails the test."""
    user, name = index.split("/")
    parts = {
        "user": user,
        "index": name,
        "project": wheel.project,
        "version": "1.0",
        "relpath": re.sub(r"^/[^/]+/[^/]+/\+[ef]/", "", file),
        "serial": "1",
        "id": "abc",
        "basename": wheel.filename,
        "toxresult": "x",
    }
    path = re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], view.partition(" ")[2]).replace("*subpath", "x.css")
    queries = {
        RULES_ROUTE: [f"?index={VAULT}", f"?index={VAULT}&list=files&name={MIRRORED.project}", f"?index={ORDERED}"],
        NAMES_ROUTE: [f"?index={index}", f"?index=root/public&index={index}", f"?index={index}&name={wheel.project}"],
        MIRRORED_ROUTE: [f"?index={one}" for one in PROTECTED],
        "/+search": ["", "?query=canary", f"?query={wheel.project}"],
    }
    return [path + query for query in queries.get(path, [""])]


VIEWS = sorted(
    {*documented(), *(f"GET /+web/{name}" for name in ("search", "packages", "search?q=canary", "activity"))}
)
CANONICAL = ("GET /{user}/{index}/+canonical/simple/{project}/", "GET /{user}/{index}/+canonical/pypi/{project}/json")
_METHODS = {"*": ("GET", "HEAD", "POST")}


def leaks(got: Got) -> list[bytes]:
    """What an answer shows that it may not; where a redirect leads says only what was asked for."""
    text = got.body + "".join(f"{name}:{value}\n" for name, value in got.headers.items() if name != "location").encode()
    return [canary for canary in SHOWN if canary in text]


def warm(world: World) -> dict[str, str]:
    """Have every page and file stored, and its reader known; the address of each index's file."""
    files = {index: world.file(index, wheel) for index, wheel in PROTECTED.items()}
    for index, wheel in PROTECTED.items():
        for path in (f"/{index}/+simple/{wheel.project}/", files[index], f"{files[index]}.metadata"):
            for headers in (JSON, HTML, FILE):
                get(world.port, path, {**headers, **basic("alice")})
    return files


class Client:
    """One connection, made anew where the server has closed it."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def get(self, method: str, path: str, headers: Mapping[str, str]) -> Got | None:
        """The answer; None for a request that the server does not even read."""
        try:
            self._connection.request(method, path, headers=dict(headers))
            answer = self._connection.getresponse()
            told = {name.lower(): value for name, value in answer.headers.items()}
            return Got(answer.status, told, answer.read())
        except (http.client.HTTPException, OSError):
            self._connection.close()
            return None


@pytest.mark.parametrize("who", READERS)
def test_no_view_shows_anything_to_others(world: World, who: str) -> None:
    files, client = warm(world), Client(world.port)
    found, answered = [], 0
    for view in (*VIEWS, *CANONICAL):
        given = view.partition(" ")[0]
        for index, wheel in PROTECTED.items() if "{index}" in view else [(SECRET, CANARY)]:
            for path in addresses(view, index, wheel, files[index]):
                for method in _METHODS.get(given, (given,)):
                    many = method == "GET" and index == SECRET and who != "a wrong password"
                    for kind in (API, JSON, HTML, BROWSER) if many else (JSON,):
                        got = client.get(method, path, {**kind, **READERS[who]})
                        answered += got is not None
                        found += [(method, path, got.status, leaks(got))] if got and leaks(got) else []
    assert not found
    assert answered > 200


@pytest.mark.parametrize("who", READERS)
def test_no_spelling_of_an_address_leads_around_it(world: World, who: str) -> None:
    file, client = warm(world)[SECRET], Client(world.port)
    page = f"/{SECRET}/+simple/{CANARY.project}/"
    spelled = [
        *(path.replace("/root", "//root") for path in (page, file)),
        *(path.replace("/secret", "//secret") for path in (page, file)),
        *(path.replace("/root", "/%72oot") for path in (page, file)),
        *(path.replace("secret", "s%65cret") for path in (page, file)),
        *(path.replace("+", "%2B") for path in (page, file)),
        *(path.replace("/secret", "%2Fsecret") for path in (page, file)),
        *(path.replace("/root", "/root/public/../../root") for path in (page, file)),
        *(path.replace("/root/secret", "/root/public/../secret") for path in (page, file)),
        *(path.replace("/root/secret", "/root/./secret") for path in (page, file)),
        *(path.replace("/root/secret", "/root/public/%2e%2e/secret") for path in (page, file)),
        *(f"{path}{end}" for path in (page, file) for end in ("?x=1", "#x", "/", "%00", ";x")),
        *(f"http://example.com{path}" for path in (page, file)),
        file.replace("/+f/", "/+e/"),
        file.replace(SECRET, ABOVE),
        f"{file}.metadata",
        f"/{VAULT}/+canonical/packages/{MIRRORED.filename}",
    ]
    headers: list[Mapping[str, str]] = [
        FILE,
        JSON,
        {**FILE, "Range": "bytes=0-99999"},
        {**JSON, "X-Devpi-Absolute-Urls": "1"},
        {**JSON, "X-Outside-URL": "http://127.0.0.1/root"},
        {**JSON, "X-Original-URI": "/root/public/"},
        {**JSON, "X-Deployer-Offline": "1"},
        {**JSON, "X-HTTP-Method-Override": "HEAD"},
        {**JSON, "Cookie": "deployer-session=YWxpY2U6YWxpY2U="},
        {**API, "X-Devpi-Auth": base64.b64encode(b"alice:wrong").decode()},
    ]
    asked = [("GET", path, sent) for path in spelled for sent in (FILE, JSON)]
    asked += [(method, path, sent) for method in ("GET", "HEAD", "POST") for path in (page, file) for sent in headers]
    found = []
    for method, path, sent in asked:
        got = client.get(method, path, {**sent, **READERS[who]})
        if got and (leaks(got) or int(got.headers.get("content-length", "0")) == len(CANARY.content)):
            found.append((path, sent, method, got))
    assert not found
    stored = page.replace("+simple/", "")
    for path in (file.replace(SECRET, "root/public"), f"/.deployer/pages/.read{stored}json", f"/.read{page}"):
        elsewhere = client.get("GET", path, {**FILE, **READERS[who]})
        assert elsewhere is not None
        assert elsewhere.status == 404


def test_its_readers_and_root_read_all(world: World) -> None:
    files = warm(world)
    for headers in (basic("alice"), world.root):
        for index, wheel in PROTECTED.items():
            for kind in (JSON, HTML):
                page = get(world.port, f"/{index}/+simple/{wheel.project}/", {**kind, **headers})
                assert wheel.filename.encode() in page.body, (index, page)
            file = get(world.port, files[index], {**FILE, **headers})
            assert (file.status, file.body) == (200, wheel.content)
            assert "public" not in file.headers["cache-control"]
            assert request(world.port, "GET", f"/{index}", headers=headers)[1]["result"]["title"] == TITLE
        shown = request(world.port, "GET", "/root", headers=headers)[1]["result"]["indexes"]
        assert {f"root/{name}" for name in shown} >= {*PROTECTED, "root/public"}
    view = get(world.port, f"/{VAULT}/+canonical/simple/{MIRRORED.project}/", {**JSON, **basic("alice")})
    assert MIRRORED.filename.encode() in view.body


def test_others_see_the_indexes_that_are_theirs(world: World) -> None:
    for headers in ({}, basic("bob")):
        assert set(request(world.port, "GET", "/root", headers=headers)[1]["result"]["indexes"]) == {"public"}
        assert set(request(world.port, "GET", "/", headers=headers)[1]["result"]["root"]["indexes"]) == {"public"}
        page = get(world.port, f"/root/public/+simple/{OPEN.project}/", {**JSON, **headers})
        assert OPEN.filename.encode() in page.body


def test_a_login_is_asked_for_and_a_user_is_refused(world: World) -> None:
    path = f"/{SECRET}/+simple/{CANARY.project}/"
    for headers in (READERS["anybody"], READERS["a wrong password"]):
        asked = get(world.port, path, {**JSON, **headers})
        assert (asked.status, asked.headers["www-authenticate"]) == (401, 'Basic realm="pypi"')
    refused = get(world.port, path, {**JSON, **basic("bob")})
    assert (refused.status, refused.body) == (403, b"bob may not read root/secret\n")


def test_who_may_upload_and_not_read_uploads_nothing_and_pushes_nothing(world: World) -> None:
    world.change("root/public", acl_upload=["root", "bob"])
    assert upload(world.server, basic("bob"), SECRET, make_wheel("other", "1.0")) == 403
    push = {"name": CANARY.project, "version": "1.0", "targetindex": "root/public"}
    for method in ("POST", "PUSH"):
        assert request(world.port, method, f"/{SECRET}", body=push, headers=basic("bob"))[0] == 403
    assert get(world.port, f"/root/public/+simple/{CANARY.project}/", JSON).status == 404


def test_who_makes_an_index_above_reads_no_more(world: World) -> None:
    stage = {**world.codec.encode({"type": "stage"}), "bases": [SECRET], "acl_read": [":ANONYMOUS:"]}
    assert request(world.port, "PUT", "/root/door", body=stage, headers=world.root)[0] == 200
    try:
        for headers in READERS.values():
            assert get(world.port, f"/root/door/+simple/{CANARY.project}/", {**JSON, **headers}).status in (401, 403)
    finally:
        assert request(world.port, "DELETE", "/root/door", headers=world.root)[0] == 201


def test_a_change_of_readers_holds_when_it_is_acknowledged(world: World) -> None:
    page, file = f"/{SECRET}/+simple/{CANARY.project}/", warm(world)[SECRET]

    def statuses(headers: Mapping[str, str]) -> set[int]:
        return {get(world.port, path, {**FILE, **headers, "Accept": kind}).status for path, kind in wanted}

    wanted = [(page, JSON["Accept"]), (file, "*/*"), (f"/{ABOVE}/+simple/{CANARY.project}/", JSON["Accept"])]
    try:
        assert statuses(basic("alice")) == {200}
        for _again in range(3):
            world.change(SECRET, acl_read=[])
            assert statuses(basic("alice")) == {403}
            world.change(SECRET, acl_read=[":ANONYMOUS:"])
            assert statuses({}) == {200}
            assert statuses({}) == {200}
            world.change(SECRET, acl_read=["alice"])
            assert statuses({}) == {401}
            assert statuses(basic("alice")) == {200}
    finally:
        world.change(SECRET, acl_read=["alice"])


def test_a_former_password_and_a_deleted_user_read_nothing_more(world: World) -> None:
    page = f"/{SECRET}/+simple/{CANARY.project}/"
    assert request(world.port, "PUT", "/carol", body={"password": "carol-password"}, headers=world.root)[0] == 201
    world.change(SECRET, acl_read=["alice", "carol"])
    try:
        for _again in range(2):
            assert get(world.port, page, {**JSON, **basic("carol")}).status == 200
        world.change("carol", password="another-password")
        assert get(world.port, page, {**JSON, **basic("carol")}).status == 401
        assert get(world.port, page, {**JSON, **basic("carol", "another-password")}).status == 200
        assert request(world.port, "DELETE", "/carol", headers=world.root)[0] == 200
        assert get(world.port, page, {**JSON, **basic("carol", "another-password")}).status == 401
    finally:
        world.change(SECRET, acl_read=["alice"])


def test_wrong_passwords_keep_nobody_who_is_known_from_reading(world: World) -> None:
    page = f"/{SECRET}/+simple/{CANARY.project}/"
    assert get(world.port, page, {**JSON, **basic("alice")}).status == 200
    told: list[int] = []
    storm = [
        threading.Thread(
            target=lambda number: told.append(get(world.port, page, {**JSON, **basic("bob", f"x{number}")}).status),
            args=[number],
        )
        for number in range(80)
    ]
    for one in storm:
        one.start()
    during = [get(world.port, page, {**JSON, **basic("alice")}).status for _again in range(20)]
    for one in storm:
        one.join()
    assert set(during) == {200}
    assert set(told) <= {401, 503}


def test_a_token_of_a_reader_reads_what_it_is_for(world: World) -> None:
    def read(token: str, index: str = SECRET, user: str = "alice") -> int:
        return get(world.port, f"/{index}/+simple/{CANARY.project}/", {**JSON, **basic(user, token)}).status

    def token(**limits: object) -> str:
        body = {"expires": "never", **limits}
        status, made = request(world.port, "POST", "/alice/+token-create", body=body, headers=world.root)
        assert status == 200, made
        return str(made["result"]["token"])

    reads, uploads, narrow = token(allowed=["pkg_read"]), token(allowed=["upload"]), token(indexes=[ABOVE])
    for _again in range(2):
        assert read(reads) == read(reads, user="__token__") == 200
        assert read(uploads) == 403
        assert (read(narrow, ABOVE), read(narrow)) == (200, 401)


def test_what_nginx_is_told_is_in_memory_and_no_password(world: World) -> None:
    granted = world.server.private / "run/granted"
    if not granted.is_dir():
        pytest.skip("nginx does not run, or no file system is in memory")
    assert granted.resolve().stat().st_mode & 0o777 == 0o700
    assert not granted.resolve().is_relative_to(world.server.serverdir)
    # An edge of ten seconds may be between the request and the look: then another request is granted it anew.
    texts: list[str] = []
    deadline = time.monotonic() + PATIENCE
    while not texts:
        assert time.monotonic() < deadline
        warm(world)
        with contextlib.suppress(FileNotFoundError):
            texts = [path.read_text() for path in granted.rglob("*") if path.is_file()]
    assert all(re.fullmatch(r"\w+:\{SSHA\}[A-Za-z0-9+/]{48}\n", text) for text in texts)


def test_a_warm_page_is_not_asked_of_devpi(world: World) -> None:
    if not (world.server.private / "run/granted").is_dir():
        pytest.skip("nginx does not run, or no file system is in memory")
    warm(world)
    deadline, path = time.monotonic() + PATIENCE, f"/{SECRET}/+simple/{CANARY.project}/"
    # nginx says it in other words than the server. A grant may just have ended.
    while get(world.port, path, {**JSON, **basic("alice")}).headers["vary"] != "Accept":
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize(("client", "how"), [("pip", "netrc"), ("uv", "address"), ("uv", "netrc")])
def test_installers_read_with_a_password(world: World, client: str, how: str, tmp_path: Path) -> None:
    def install(user: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login {user} password {user}-password\n")
        (tmp_path / ".netrc").chmod(0o600)
        host = f"127.0.0.1:{world.port}"
        index = f"http://{f'{user}:{user}-password@' if how == 'address' else ''}{host}/{ORDERED}/+simple/"
        words = {
            "pip": [sys.executable, "-I", "-m", "pip", "install", "--isolated", "--no-cache-dir", "--no-input"],
            "uv": [str(BESIDE / "uv"), "--no-config", "pip", "install", "--no-cache", "--python", sys.executable],
        }[client]
        env = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "UV_HTTP_RETRIES": "0"}
        command = [*words, "--no-deps", "--index-url", index, "--target", str(tmp_path / user), MIRRORED.project]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False)

    done = install("alice")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "alice/mirroredcanary.py").exists()
    if client == "pip":
        refused = install("bob")
        assert refused.returncode != 0
        assert not (tmp_path / "bob/mirroredcanary.py").exists()
