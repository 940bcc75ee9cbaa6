"""What clients can have the server ask of others: where releases go, and who hears of which name."""

from __future__ import annotations

import base64
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, Self

import pytest

from deployer.devpi.api import DevpiApi
from deployer.secrets import Secret
from tests.indexed_server import FILE, HTML, JSON, get, upload
from tests.server_process import Server, login, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

WHEEL = make_wheel("released", "1.0")
_CHANGES = "application/x-devpi-replica-changes"
REPLICATED = (_CHANGES, f"{_CHANGES}-v2", "application/x-devpi-replica-stream-v2", "application/octet-stream", "*/*")
GIVEN = {"username": "somebody", "password": "else"}


@dataclass
class Target:
    """A server that takes whatever is posted to it, and notes that."""

    redirect: str = ""
    posted: list[tuple[str, str, bytes]] = field(default_factory=list)  # path, authorization, body

    def __enter__(self) -> Self:
        target = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                target.posted.append((self.path, self.headers.get("Authorization", ""), body))
                self.send_response(307 if target.redirect else 200)
                self.send_header("Location", target.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class World:
    """A server with one release, which root and ``dev`` may upload to, and two more people: ``eve`` and nobody."""

    server: Server
    headers: dict[str, dict[str, str]]

    def index(self, name: str, **fields: Any) -> None:
        """Make an index; fields in the words of version 6, whatever the server's are."""
        with DevpiApi(f"http://127.0.0.1:{self.server.port}") as api:
            api.login("root", Secret(self.server.password))
            api.put_index(name, fields)

    def push(self, who: str, posturl: object, *, method: str = "POST") -> tuple[int, Any]:
        body = {"name": "released", "version": "1.0", "posturl": posturl, **GIVEN}
        return request(self.server.port, method, "/dev/work", body=body, headers=self.headers[who])


def headers_of(server: Server, user: str, password: str) -> dict[str, str]:
    _, answer = request(server.port, "POST", "/+login", body={"user": user, "password": password})
    pair = f"{user}:{answer['result']['password']}"
    return {"X-Devpi-Auth": base64.b64encode(pair.encode()).decode()}


def make_world(server: Server) -> World:
    root = server.auth
    for user in ("dev", "eve"):
        assert request(server.port, "PUT", f"/{user}", body={"password": f"{user}-{user}"}, headers=root)[0] == 201
    users = {user: headers_of(server, user, f"{user}-{user}") for user in ("dev", "eve")}
    world = World(server, {"nobody": {}, "root": root, **users})
    world.index("dev/work", type="stage", bases=(), volatile=True, acl_upload=("dev", "root"))
    assert upload(server, root, "dev/work", WHEEL) == 200
    return world


@pytest.fixture(params=["6", "7"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    python = sys.executable if request.param == "6" else request.getfixturevalue("python7")
    made = Server(tmp_path / "server", python=python)
    try:
        yield made
    finally:
        made.end()


def test_nobody_sends_a_release_to_an_address_of_his_choice(server: Server) -> None:
    world = make_world(server.start())
    with Target() as target:
        for who in world.headers:
            for method in ("POST", "PUSH"):
                status, answer = world.push(who, f"{target.url}/internal?x=1", method=method)
                assert status == 403, (who, method, answer)
            cure = "server.push_to" if who in ("root", "dev") else "log in"
            assert cure in answer["message"]
        assert target.posted == []


def test_releases_go_to_origins_that_were_named_and_from_those_who_may_upload(server: Server) -> None:
    with Target() as named, Target() as other:
        world = make_world(server.start("--push-to", named.url))
        for who in ("nobody", "eve"):
            assert world.push(who, f"{named.url}/legacy/")[0] == 403
        disguised = (
            f"{other.url}/legacy/",
            f"https://127.0.0.1:{named.port}/legacy/",
            f"http://localhost:{named.port}/",
            f"http://127.0.0.1:{named.port}@127.0.0.1:{other.port}/",
            f"http://127.0.0.1:{other.port}#@127.0.0.1:{named.port}/",
            f"//127.0.0.1:{named.port}/",
            "file:///etc/passwd",
            "http://127.0.0.1:99999/",
            "",
            None,
            {"a": 1},
        )
        for posturl in disguised:
            assert world.push("dev", posturl)[0] == 403, posturl
        assert (named.posted, other.posted) == ([], [])
        # Programs differ in what they take for the host here: who decides must not differ from who connects.
        world.push("dev", f"http://127.0.0.1:{other.port}\\@127.0.0.1:{named.port}/")
        assert other.posted == []
        named.posted.clear()
        status, answer = world.push("dev", f"{named.url}/legacy/")
        assert status == 200, answer
        ((path, authorization, body),) = named.posted
        assert (path, authorization) == ("/legacy/", "Basic " + base64.b64encode(b"somebody:else").decode())
        assert WHEEL.content in body
        named.redirect = f"{other.url}/legacy/"
        assert world.push("dev", f"{named.url}/legacy/")[0] == 502
        assert other.posted == []


def test_an_upstream_is_asked_again_only_for_users_and_only_the_one_that_may_serve_the_name(server: Server) -> None:
    private = Upstream([make_wheel("acme-core", "1.0"), make_wheel("shop", "1.0")])
    public = Upstream([make_wheel("acme-core", "9.0"), make_wheel("pubonly", "1.0")])
    with private, public:
        world = make_world(server.start("--web", "devpi-web"))
        for name, upstream in (("root/private", private), ("root/public", public)):
            world.index(name, type="mirror", mirror_url=upstream.simple_url, mirror_no_project_list=True)
        owned = {"owns": ("root/private:acme-*",), "only_owned": ("root/private",)}
        world.index("root/dev", type="ordered", bases=("root/private", "root/public"), **owned)

        def refresh(who: str, project: str) -> list[int]:
            paths = (f"/root/dev/+simple/{project}/refresh", f"/root/dev/{project}/refresh")
            return [request(server.port, "POST", path, headers=world.headers[who])[0] for path in paths]

        def page(project: str) -> bytes:
            return get(server.port, f"/root/dev/+simple/{project}/", HTML).body

        assert refresh("nobody", "acme-core") == [403, 403]
        assert refresh("nobody", "pubonly") == [403, 403]
        assert (private.requests, public.requests) == ((), ())
        assert b"acme_core-1.0" in page("acme-core")
        private.add(make_wheel("acme-core", "1.1"))
        assert b"acme_core-1.1" not in page("acme-core")
        assert refresh("eve", "acme-core") == [302, 302]
        assert b"acme_core-1.1" in page("acme-core")
        assert refresh("eve", "pubonly") == [302, 302]
        private.stop()
        refresh("eve", "acme-core")
        assert b"acme_core-1.1" in page("acme-core")
        assert not [one.path for one in public.requests if "acme" in one.path]
        assert not [one.path for one in private.requests if "pubonly" in one.path]


def test_no_request_of_a_stranger_tells_the_public_upstream_a_private_name(server: Server) -> None:
    with Upstream([make_wheel("acme-core", "9.0")]) as public:
        world = make_world(server.start("--web", "devpi-web"))
        private = {"type": "mirror", "mirror_url": "http://127.0.0.1:9/simple/", "mirror_no_project_list": True}
        world.index("root/private", **private)
        world.index("root/public", **private | {"mirror_url": public.simple_url})
        bases = ("root/public", "root/private")
        world.index("root/dev", type="ordered", bases=bases, owns=("root/private:acme-*",))
        world.index("dev/above", type="stage", bases=("root/dev",))
        browser = {"Accept": "text/html", "User-Agent": "Mozilla/5.0"}
        name, file = "acme-core", "acme_core-9.0-py3-none-any.whl"
        for index in ("root/dev", "dev/above"):
            for tail in (
                *(f"+simple/{name}/", f"+simple/{name}", f"{name}", f"{name}/", f"{name}/9.0", f"{name}/latest"),
                *(f"{name}/latest+d/", f"{name}/9.0/+d/index.html", f"{name}/9.0/+tox/{file}/result/1", "Acme.Core"),
                *(f"+f/abc/def/{file}", f"+e/http_x/{file}", f"+f/abc/def/{file}.metadata", f"{name}/+json"),
                *(f"?:action=search&name={name}", f"{name}?ignore_bases=", f"{name}/9.0?versions="),
            ):
                for headers in (HTML, JSON, FILE, browser, {"Accept": "application/json"}):
                    for method in ("GET", "HEAD"):
                        get(server.port, f"/{index}/{tail}", headers, method)
            pushed = {"name": name, "version": "9.0", "targetindex": "dev/work"}
            for method, path, body in (
                ("POST", f"/{index}", pushed),
                ("PUSH", f"/{index}/", pushed),
                ("POST", f"/{index}/+simple/{name}/refresh", None),
                ("POST", f"/{index}/{name}/refresh", None),
                ("DELETE", f"/{index}/{name}", None),
                ("DELETE", f"/{index}/{name}/9.0", None),
                ("POST", f"/{index}/+f/abc/def/{file}", {}),
                ("PATCH", f"/{index}", {"bases": []}),
                ("PUT", f"/mallory/{index.partition('/')[2]}", private),
            ):
                assert request(server.port, method, path, body=body)[0] >= 400, (method, path)
        get(server.port, f"/+search?query={name}", browser)
        get(server.port, f"/+deployer/names?index=root/dev&name={name}", {"Accept": "application/json"})
        assert [one.path for one in public.requests if "acme" in one.path.lower()] == []


def test_replication_tells_strangers_nothing(server: Server) -> None:
    """The changelog holds the hashes of passwords."""
    server.start()
    uuid = request(server.port, "GET", "/+deployer")[1]["uuid"]
    told = set()
    known = ({}, {"X-DEVPI-EXPECTED-PRIMARY-ID": uuid}, {"X-DEVPI-EXPECTED-MASTER-ID": ""})
    for path, accept, headers in product(("/+changelog/0", "/+changelog/0-"), REPLICATED, known):
        status, body = request(server.port, "GET", path, headers={**headers, "Accept": accept})
        told.add(status)
        assert status in (403, 406), (path, accept, headers)
        assert b"argon2" not in (body if isinstance(body, bytes) else repr(body).encode())
    assert 403 in told
    assert login(server.port, "")[0] == 401
