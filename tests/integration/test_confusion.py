"""Whom a name belongs to, as real installers find out: private and public upstream have the same projects.

``acme-*`` belongs to the private index by a declared pattern, ``shop`` only because it is there.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from deployer.devpi.api import DevpiApi
from deployer.errors import ServerRefused
from deployer.secrets import Secret
from tests.indexed_server import upload
from tests.integration.cli import Cli
from tests.integration.deployments import DEPLOYMENTS, deployed
from tests.server_process import auth_header, login
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
_count = itertools.count()


@dataclass
class World:
    """A server between a private and a public upstream, of which each test has its own, as it has a user of its own:
    whoever names an index means that user's."""

    cli: Cli
    api: DevpiApi
    private: Upstream
    public: Upstream
    folder: Path
    user: str = field(default_factory=lambda: f"team{next(_count)}")

    def index(self, name: str, kind: str, *bases: str, **fields: Any) -> None:
        """Made as our commands do it: the words are those of version 6 whatever the server's are."""
        named = {"bases": tuple(self.full(base) for base in bases)} if bases else {}
        self.api.put_index(self.full(name), {"type": kind, **named, **fields})

    def full(self, name: str) -> str:
        return f"{self.user}/{name}"

    def owns(self, *patterns: str) -> tuple[str, ...]:
        return tuple(self.full(f"private:{pattern}") for pattern in patterns)

    def ordered(self, *bases: str, only_owned: bool = False) -> None:
        more = {"only_owned": (self.full("private"),)} if only_owned else {}
        self.index("dev", "ordered", *bases, owns=self.owns("acme-*"), acl_upload=("root",), **more)

    def mirror(self, name: str, upstream: Upstream, *, listed: bool = False) -> None:
        self.index(name, "mirror", mirror_url=upstream.simple_url, mirror_no_project_list=not listed)

    def got(self, client: str, requirement: str, index: str = "dev") -> str:
        """Whose file a real installer got, and of which version."""
        target = self.folder / f"got-{next(_count)}"
        url = f"{self.cli.url}/{self.full(index)}/+simple/"
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

    def page(self, project: str, *, index: str = "dev", accept: str = "text/html", agent: str = "pip/24") -> str:
        """The text of a simple page; what is not 200 is an empty one."""
        return self.fetch(f"{index}/+simple/{project}/", accept=accept, agent=agent)

    def fetch(self, path: str, *, accept: str = "text/html", agent: str = "curl") -> str:
        connection = HTTPConnection("127.0.0.1", self.cli.port, timeout=60)
        try:
            connection.request("GET", f"/{self.full(path)}", headers={"Accept": accept, "User-Agent": agent})
            response = connection.getresponse()
            body = response.read().decode()
            return body if response.status == 200 else ""
        finally:
            connection.close()


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    indexes = {"root/pypi": None, "root/dev": {"type": "stage", "bases": []}}
    profile = {"server": {"web": "devpi-web"}, "indexes": indexes}
    with deployed(request, tmp_path_factory.mktemp("confusion"), profile) as running:
        yield running


@pytest.fixture
def world(cli: Cli, tmp_path: Path) -> Iterator[World]:
    with Upstream(PRIVATE) as private, Upstream(PUBLIC) as public, DevpiApi(cli.url) as api:
        api.login("root", Secret(cli.run("secret", "show").out.strip()))
        made = World(cli, api, private, public, tmp_path)
        api.put_user(made.user, {}, password=Secret("the password of a user of tests"))
        made.mirror("private", private)
        made.mirror("pypi", public)
        yield made


def test_private_first_cold_warm_down_and_restarted(world: World) -> None:
    world.ordered("private", "pypi")
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
    assert world.cli.run("restart").code == 0
    assert world.got("pip", "acme-core") == world.got("uv", "acme-core") == "private 1.1.0"
    assert world.got("pip", "shop") == "private 1.0"
    assert world.got("uv", "acme-core>=9") == NOTHING


def test_public_first_serves_public_names_and_leaves_owned_ones_alone(world: World) -> None:
    world.ordered("pypi", "private")
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
    world.ordered("private", "pypi", only_owned=True)
    world.private.faults.status = 503
    assert world.got("pip", "pubonly") == "public 1.0"
    assert world.got("uv", "shop") == "public 2.0"
    assert world.got("uv", "acme-core") == NOTHING
    world.private.faults.status = 0
    assert world.got("uv", "acme-core") == "private 1.1.0"
    assert {seen.path for seen in world.private.requests if seen.path.startswith("/simple")} == {"/simple/acme-core/"}
    assert "acme-core" not in " ".join(seen.path for seen in world.public.requests)


def test_an_upstream_that_is_gone_is_no_other_than_one_that_fails(world: World) -> None:
    world.ordered("private", "pypi")
    world.private.stop()
    assert world.got("pip", "acme-core") == world.got("uv", "shop") == NOTHING


def test_the_list_of_all_projects_is_no_other_than_its_pages(world: World) -> None:
    world.mirror("listed", world.private, listed=True)
    world.index("dev", "ordered", "listed", "pypi")
    world.private.faults.status = 503
    assert world.page("shop") == world.page("shop", index="listed") == ""
    world.private.faults.status = 0
    assert "shop-1.0" in world.page("shop")
    assert "pubonly-1.0" in world.page("pubonly")


def test_the_order_holds_where_the_index_is_a_base_itself(world: World) -> None:
    world.ordered("private", "pypi")
    world.index("team", "stage", "dev")
    world.index("both", "stage", "pypi", "dev")
    world.index("outer", "ordered", "team", "pypi")
    world.private.faults.status = 503
    for index in ("team", "both", "outer"):
        assert world.page("acme-core", index=index) == world.page("shop", index=index) == ""
    world.private.faults.status = 0
    for index in ("team", "both", "outer"):
        assert "acme_core-1.1.0" in world.page("acme-core", index=index)
        assert "9.9.9" not in world.page("acme-core", index=index)
        assert "shop-1.0" in world.page("shop", index=index)
        assert "pubonly-1.0" in world.page("pubonly", index=index)
    assert world.got("uv", "acme-core", "team") == "private 1.1.0"


def test_every_view_of_a_project_agrees(world: World) -> None:
    world.ordered("private", "pypi")
    assert "9.9.9" in world.page("acme-core", index="pypi")  # known here, so a name of both
    json_type = "application/vnd.pypi.simple.v1+json"
    views = {
        "html": world.page("acme-core"),
        "browser": world.page("acme-core", agent="Mozilla/5.0"),
        "json": world.page("acme-core", accept=json_type),
        "versions": world.fetch("dev/acme-core", accept="application/json"),
        "web": world.fetch("dev/acme-core"),
    }
    for name, text in views.items():
        assert "1.1.0" in text, name
        assert "9.9.9" not in text and "pypi/+f" not in text, name
    for accept in ("application/json", "text/html"):
        assert "pypi/+f" not in world.fetch("dev/acme-core/9.9.9", accept=accept)
    world.index("strict", "ordered", "private", "pypi", owns=world.owns("acme-*", "pub*"))
    world.page("pubonly", index="pypi")
    listed = world.fetch("strict/+simple/", accept=json_type)
    assert '"acme-core"' in listed and "pubonly" not in listed


def test_what_is_uploaded_to_the_index_itself_comes_first(world: World) -> None:
    world.ordered("private", "pypi")
    patched = make_wheel("shop", "1.0.1", files={"origin.txt": "private"})
    password = world.cli.run("secret", "show").out.strip()
    auth = auth_header(login(world.cli.port, password)[1]["result"]["password"])
    assert upload(world.cli, auth, world.full("dev"), patched) == 200
    assert "shop-1.0.1" in world.page("shop")
    assert "shop-1.0-" not in world.page("shop") and "shop-2.0" not in world.page("shop")


@pytest.mark.parametrize(
    "fields",
    [
        {"owns": ["{user}/other:acme-*"]},
        {"owns": ["acme-*"]},
        {"owns": ["{user}/private:[a-z]+"]},
        {"only_owned": ["{user}/pypi"]},
    ],
)
def test_what_the_server_refuses_of_an_ordered_index(world: World, fields: dict[str, list[str]]) -> None:
    named = {key: tuple(entry.format(user=world.user) for entry in entries) for key, entries in fields.items()}
    with pytest.raises(ServerRefused, match="HTTP 400"):
        world.index("dev", "ordered", "private", **named)
