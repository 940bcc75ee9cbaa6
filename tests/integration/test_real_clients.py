"""devpi-client, twine and `uv publish` against a deployment, with our passwords and our tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.deployments import DEPLOYMENTS, deployed
from tests.integration.real_clients import Clients
from tests.upstream import Upstream, make_sdist, make_wheel

PROFILE: dict[str, Any] = {
    "users": {"dev": {}},
    "indexes": {
        "dev/work": {"type": "stage", "bases": ["root/pypi"], "volatile": True, "acl_upload": ["dev"]},
        "dev/release": {"type": "stage", "acl_upload": ["dev"], "volatile": False},
    },
}


@pytest.fixture(scope="module", params=DEPLOYMENTS)
def clients(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    theirs = tmp_path_factory.mktemp("clients")
    for made in (make_wheel("acme-core", "1.0"), make_sdist("acme-core", "1.0"), make_wheel("acme-core", "2.0")):
        (theirs / made.filename).write_bytes(made.content)
    with Upstream([make_wheel("demo", "1.0")]) as upstream:
        indexes = {**PROFILE["indexes"], "root/pypi": {"type": "mirror", "url": upstream.simple_url}}
        with deployed(request, tmp_path_factory.mktemp("home"), {**PROFILE, "indexes": indexes}) as cli:
            yield Clients(cli, theirs)


@pytest.fixture
def password(clients: Clients) -> str:
    return clients.cli.run("secret", "show", "dev").out.strip()


def versions(clients: Clients, index: str) -> list[str]:
    done = clients.cli.run("package", "show", "acme-core", "--index", index, "--json")
    return list(done.data["versions"]) if done.code == 0 else []


def test_devpi_client_works_with_the_stored_password(clients: Clients, password: str, tmp_path: Path) -> None:
    def devpi(*words: str, stdin: str = "") -> str:
        done = clients.devpi(*words, stdin=stdin)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    devpi("use", clients.cli.url)
    # Its own way of taking a password without a terminal is a word of its command line; here it is a test's.
    devpi("login", "dev", "--password", password)
    devpi("use", "dev/work")
    devpi("upload", *(str(clients.home / name) for name in ("acme_core-1.0-py3-none-any.whl", "acme_core-1.0.tar.gz")))
    assert "acme_core-1.0-py3-none-any.whl" in devpi("list", "acme-core")
    assert versions(clients, "dev/work") == ["1.0"]
    devpi("push", "acme-core==1.0", "dev/release")
    assert versions(clients, "dev/release") == ["1.0"]
    target = tmp_path / "installed"
    done = clients.cli.pip(
        "install",
        "--no-deps",
        "--index-url",
        f"{clients.cli.url}/dev/release/+simple/",
        "--target",
        str(target),
        "acme-core",
    )
    assert done.returncode == 0, done.stderr
    assert (target / "acme_core.py").read_text() == "version = '1.0'\n"
    devpi("remove", "-y", "acme-core")
    assert versions(clients, "dev/work") == []


def test_twine_and_uv_publish_with_password_and_token(clients: Clients, password: str) -> None:
    wheel = str(clients.home / "acme_core-2.0-py3-none-any.whl")
    old = str(clients.home / "acme_core-1.0-py3-none-any.whl")
    sdist = str(clients.home / "acme_core-1.0.tar.gz")
    made = clients.cli.run("token", "create", "dev", "--index", "dev/work", "--expires", "1h")
    token = made.out.strip()
    assert made.code == 0, made.err
    told = [
        clients.twine("dev/work", old, user="dev", password=password),
        clients.twine("dev/work", old, user="__token__", password=token),
        clients.twine("dev/work", sdist, user="dev", password=token),
        clients.uv("dev/work", wheel, UV_PUBLISH_TOKEN=token),
        clients.uv("dev/work", wheel, UV_PUBLISH_USERNAME="dev", UV_PUBLISH_PASSWORD=password),
    ]
    assert [done.returncode for done in told] == [0] * len(told), [done.stdout + done.stderr for done in told]
    assert versions(clients, "dev/work") == ["2.0", "1.0"]
    refused = [
        clients.twine("dev/release", wheel, user="__token__", password=token),
        clients.uv("dev/release", wheel, UV_PUBLISH_TOKEN=token),
        clients.twine("dev/work", wheel, user="dev", password="wrong"),
    ]
    assert all(done.returncode != 0 for done in refused)
    assert "403" in refused[0].stdout + refused[0].stderr
    assert clients.cli.run("token", "revoke", "dev", "all").code == 0
    assert clients.twine("dev/work", wheel, user="__token__", password=token).returncode != 0
