"""Whom a name belongs to, as real installers find out: private and public upstream have the same projects.

``acme-*`` belongs to the private index by a declared pattern, ``shop`` only because it is there.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.server_process import Server, auth_header, login, request
from tests.upstream import Upstream, make_sdist, make_wheel

UV = Path(sys.executable).with_name("uv")
CLIENTS = ("pip", "uv")
PRIVATE = [
    make_wheel("acme-core", "1.0.0", files={"origin.txt": "private"}),
    make_wheel("acme-core", "1.1.0", files={"origin.txt": "private"}),
    make_sdist("acme-tool", "1.0", files={"origin.txt": "private"}),
    make_wheel("shop", "1.0", files={"origin.txt": "private"}),
    make_wheel("privonly", "1.0", files={"origin.txt": "private"}),
]
PUBLIC = [
    make_wheel("acme-core", "9.9.9", files={"origin.txt": "public"}),
    make_wheel("acme-core", "1.0.0", files={"origin.txt": "public"}),
    make_wheel("acme-tool", "9.0", files={"origin.txt": "public"}),
    make_wheel("shop", "2.0", files={"origin.txt": "public"}),
    make_wheel("pubonly", "1.0", files={"origin.txt": "public"}),
]
FILES = {distribution.content: f"private {distribution.version}" for distribution in PRIVATE} | {
    distribution.content: f"public {distribution.version}" for distribution in PUBLIC
}
NOTHING = "nothing"
OWNS = ["root/private:acme-*"]


@dataclass
class World:
    """A server between a private and a public upstream."""

    server: Server
    private: Upstream
    public: Upstream
    folder: Path
    count: int = 0

    def index(self, name: str, **fields: Any) -> None:
        _, answer = login(self.server.port, self.server.password)
        auth = auth_header(answer["result"]["password"])
        status, answer = request(self.server.port, "PUT", f"/{name}", body=fields, headers=auth)
        assert status == 200, answer

    def ordered(self, *bases: str, name: str = "root/dev", only_owned: bool = False) -> None:
        more = {"only_owned": ["root/private"]} if only_owned else {}
        self.index(name, type="ordered", bases=list(bases), owns=OWNS, **more)

    def got(self, client: str, requirement: str, index: str = "root/dev") -> str:
        """Whose file a real installer got, and of which version."""
        self.count += 1
        target = self.folder / f"got-{self.count}"
        url = f"http://127.0.0.1:{self.server.port}/{index}/+simple/"
        if client == "pip":
            words = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-cache-dir"]
            words += ["--retries", "0", "--no-deps", "--no-build-isolation", "-d", str(target), "-i", url, requirement]
        else:
            words = [str(UV), "pip", "install", "-q", "--no-cache", "--no-deps", "--target", str(target)]
            words += ["--default-index", url, requirement]
        env = {
            "HOME": str(self.folder),
            "PATH": "/usr/bin:/bin",
            "UV_HTTP_RETRIES": "0",
            "PIP_CONFIG_FILE": "/dev/null",
        }
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            return NOTHING
        if client == "pip":
            (file,) = target.iterdir()
            return FILES[file.read_bytes()]
        (info,) = target.glob("*.dist-info")
        return f"{(target / 'origin.txt').read_text()} {info.name.removesuffix('.dist-info').rpartition('-')[2]}"

    def page(self, project: str, *, index: str = "root/dev", accept: str = "text/html", agent: str = "pip/24") -> str:
        """The text of a simple page; what is not 200 is an empty one."""
        return self.fetch(f"/{index}/+simple/{project}/", accept=accept, agent=agent)

    def fetch(self, path: str, *, accept: str = "text/html", agent: str = "curl") -> str:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        try:
            connection.request("GET", path, headers={"Accept": accept, "User-Agent": agent})
            response = connection.getresponse()
            body = response.read().decode()
            return body if response.status == 200 else ""
        finally:
            connection.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Upstream(PRIVATE) as private, Upstream(PUBLIC) as public:
        server = Server(tmp_path / "server")
        try:
            server.start("--web")
            made = World(server, private, public, tmp_path)
            made.index("root/private", type="mirror", mirror_url=private.simple_url, mirror_no_project_list=True)
            made.index("root/pypi", type="mirror", mirror_url=public.simple_url, mirror_no_project_list=True)
            yield made
        finally:
            server.end()


def test_private_first_cold_warm_down_and_restarted(world: World) -> None:
    world.ordered("root/private", "root/pypi")
    world.private.faults.status = 503
    for client in CLIENTS:
        assert world.got(client, "acme-core") == NOTHING
        assert world.got(client, "acme-core==1.0.0") == NOTHING
    # Whether it is private is not known: nothing, not the public one.
    assert world.got("pip", "shop") == NOTHING
    assert world.page("acme-tool") == world.page("privonly") == world.page("pubonly") == ""

    world.private.faults.status = 0

    def right() -> None:
        for client in CLIENTS:
            assert world.got(client, "Acme.Core") == "private 1.1.0"
            assert world.got(client, "acme-core==1.0.0") == "private 1.0.0"
            assert world.got(client, "acme-core>=9") == NOTHING
            assert world.got(client, "shop") == "private 1.0"
        assert "acme_tool-1.0.tar.gz" in world.page("acme-tool")
        assert ".whl" not in world.page("acme-tool")

    right()
    assert world.got("uv", "privonly") == "private 1.0"
    assert world.got("uv", "pubonly") == "public 1.0"
    world.private.faults.status = 503
    right()
    world.server.end()
    world.server.start("--web")
    assert world.got("pip", "acme-core") == world.got("uv", "acme-core") == "private 1.1.0"
    assert world.got("pip", "shop") == "private 1.0"
    assert world.got("uv", "acme-core>=9") == NOTHING


def test_public_first_serves_public_names_and_leaves_owned_ones_alone(world: World) -> None:
    world.ordered("root/pypi", "root/private")
    world.public.faults.status = 503
    assert world.got("pip", "shop") == NOTHING
    assert world.got("uv", "acme-core") == "private 1.1.0"
    world.public.faults.status = 0
    for client in CLIENTS:
        assert world.got(client, "acme-core") == "private 1.1.0"
        assert world.got(client, "shop") == "public 2.0"
    assert world.got("uv", "privonly") == "private 1.0"
    world.private.faults.status = 503
    assert world.got("uv", "acme-core") == "private 1.1.0"
    assert "acme-core" not in " ".join(seen.path for seen in world.public.requests)


def test_only_owned_names_are_asked_for_so_that_all_others_work_without(world: World) -> None:
    world.ordered("root/private", "root/pypi", only_owned=True)
    world.private.faults.status = 503
    assert world.got("pip", "pubonly") == "public 1.0"
    assert world.got("uv", "shop") == "public 2.0"
    assert world.got("uv", "acme-core") == NOTHING
    world.private.faults.status = 0
    assert world.got("uv", "acme-core") == "private 1.1.0"
    assert {seen.path for seen in world.private.requests if seen.path.startswith("/simple")} == {"/simple/acme-core/"}
    assert "acme-core" not in " ".join(seen.path for seen in world.public.requests)


def test_an_upstream_that_is_gone_is_no_other_than_one_that_fails(world: World) -> None:
    world.ordered("root/private", "root/pypi")
    world.private.stop()
    assert world.got("pip", "acme-core") == world.got("uv", "shop") == NOTHING


def test_the_list_of_all_projects_is_no_other_than_its_pages(world: World) -> None:
    world.index("root/listed", type="mirror", mirror_url=world.private.simple_url, mirror_no_project_list=False)
    world.index("root/dev", type="ordered", bases=["root/listed", "root/pypi"])
    world.private.faults.status = 503
    assert world.page("shop") == world.page("shop", index="root/listed") == ""
    world.private.faults.status = 0
    assert "shop-1.0" in world.page("shop")
    assert "pubonly-1.0" in world.page("pubonly")


def test_the_order_holds_where_the_index_is_a_base_itself(world: World) -> None:
    world.ordered("root/private", "root/pypi")
    world.index("root/team", type="stage", bases=["root/dev"])
    world.index("root/both", type="stage", bases=["root/pypi", "root/dev"])
    world.index("root/outer", type="ordered", bases=["root/team", "root/pypi"])
    world.private.faults.status = 503
    for index in ("root/team", "root/both", "root/outer"):
        assert world.page("acme-core", index=index) == world.page("shop", index=index) == ""
    world.private.faults.status = 0
    for index in ("root/team", "root/both", "root/outer"):
        assert "acme_core-1.1.0" in world.page("acme-core", index=index)
        assert "9.9.9" not in world.page("acme-core", index=index)
        assert "shop-1.0" in world.page("shop", index=index)
        assert "pubonly-1.0" in world.page("pubonly", index=index)
    assert world.got("uv", "acme-core", "root/team") == "private 1.1.0"


def test_every_view_of_a_project_agrees(world: World) -> None:
    world.ordered("root/private", "root/pypi")
    assert "9.9.9" in world.page("acme-core", index="root/pypi")  # known here, so a name of both
    json_type = "application/vnd.pypi.simple.v1+json"
    views = {
        "html": world.page("acme-core"),
        "browser": world.page("acme-core", agent="Mozilla/5.0"),
        "json": world.page("acme-core", accept=json_type),
        "versions": world.fetch("/root/dev/acme-core", accept="application/json"),
        "web": world.fetch("/root/dev/acme-core"),
    }
    for name, text in views.items():
        assert "1.1.0" in text, name
        assert "9.9.9" not in text and "root/pypi/+f" not in text, name
    for accept in ("application/json", "text/html"):
        assert "root/pypi/+f" not in world.fetch("/root/dev/acme-core/9.9.9", accept=accept)
    private_only = {"owns": ["root/private:acme-*", "root/private:pub*"]}
    world.index("root/strict", type="ordered", bases=["root/private", "root/pypi"], **private_only)
    world.page("pubonly", index="root/pypi")
    listed = world.fetch("/root/strict/+simple/", accept=json_type)
    assert '"acme-core"' in listed and "pubonly" not in listed


def test_what_is_uploaded_to_the_index_itself_comes_first(world: World) -> None:
    world.ordered("root/private", "root/pypi")
    patched = make_wheel("shop", "1.0.1", files={"origin.txt": "private"})
    auth = world.server.auth
    boundary = b"----------------b"
    fields = {":action": "file_upload", "name": "shop", "version": "1.0.1", "filetype": "bdist_wheel"}
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (boundary, key.encode(), value.encode())
        for key, value in fields.items()
    ]
    head = b'--%b\r\nContent-Disposition: form-data; name="content"; filename="%b"\r\n\r\n'
    parts += [head % (boundary, patched.filename.encode()), patched.content, b"\r\n--%b--\r\n" % boundary]
    connection = HTTPConnection("127.0.0.1", world.server.port, timeout=60)
    content_type = {"Content-Type": f"multipart/form-data; boundary={boundary.decode()}"}
    connection.request("POST", "/root/dev/", body=b"".join(parts), headers=content_type | auth)
    assert connection.getresponse().status == 200
    connection.close()
    assert "shop-1.0.1" in world.page("shop")
    assert "shop-1.0-" not in world.page("shop") and "shop-2.0" not in world.page("shop")


@pytest.mark.parametrize(
    "fields",
    [
        {"bases": ["root/private"], "owns": ["root/other:acme-*"]},
        {"bases": ["root/private"], "owns": ["acme-*"]},
        {"bases": ["root/private"], "owns": ["root/private:[a-z]+"]},
        {"bases": ["root/private"], "only_owned": ["root/pypi"]},
    ],
)
def test_what_the_server_refuses_of_an_ordered_index(world: World, fields: dict[str, Any]) -> None:
    status, _ = request(
        world.server.port, "PUT", "/root/dev", body={"type": "ordered", **fields}, headers=world.server.auth
    )
    assert status == 400
