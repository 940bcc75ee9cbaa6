"""What an upstream wants to see: handed over by the command line, sent to its own host only, and shown to nobody."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.cli import Cli
from tests.integration.deployments import PROCESS, SEVEN
from tests.server_process import auth_header, login, request
from tests.upstream import Faults, Upstream, make_wheel

CANARY = f"c4n4ry-{os.getpid()}-s3cr3t-0f-the-private-index"
ROTATED = "r0tated-s3cr3t-0f-the-private-index"
SPELT = (CANARY, base64.b64encode(f"deploy:{CANARY}".encode()).decode(), CANARY.encode().hex())


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"deploy:{password}".encode()).decode()


@pytest.fixture
def private() -> Iterator[Upstream]:
    with Upstream([make_wheel("acme-core", "1.0")], Faults(auth=("deploy", CANARY))) as running:
        yield running


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path, private: Upstream) -> Iterator[Cli]:
    """A deployment with a private mirror, whose password is in a variable of the user's shell."""
    kind = getattr(request, "param", PROCESS)
    extra = {"PRIVATE_TOKEN": CANARY, "DEPLOYER_SET": f"server.version={kind.server}"}
    made = Cli(home=tmp_path, engine="process", extra=extra)
    if kind == SEVEN:
        made.python = request.getfixturevalue("python7")
    write_profile(made, private, {"username": "deploy", "password": "env:PRIVATE_TOKEN"})
    try:
        yield made
    finally:
        made.clean()


def write_profile(cli: Cli, private: Upstream, credentials: dict[str, str]) -> None:
    indexes = {
        "root/pypi": None,
        "root/private": {"type": "mirror", "url": private.simple_url, "credentials": credentials},
        "root/dev": {"type": "stage", "bases": ["root/private"], "volatile": False},
    }
    (cli.home / "team.yaml").write_text(yaml.safe_dump({"extends": "default", "indexes": indexes}))
    cli.extra["DEPLOYER_PROFILE"] = str(cli.home / "team.yaml")


def page(cli: Cli, project: str = "acme-core", index: str = "root/dev") -> int:
    return request(cli.port, "GET", f"/{index}/+simple/{project}/", headers={"User-Agent": "pip/24"})[0]


def found_in(text: str | bytes) -> list[str]:
    content = text if isinstance(text, bytes) else text.encode()
    return [spelt for spelt in SPELT if spelt.encode() in content]


@pytest.mark.parametrize("cli", [PROCESS, SEVEN], indirect=True, ids=str)
def test_a_secret_is_nowhere_but_in_its_own_file(cli: Cli) -> None:
    said = [
        cli.run("plan"),
        cli.run("plan", "--json"),
        cli.up("--debug"),
        cli.up("--json"),
        cli.run("status", "--json"),
    ]
    said += [cli.run("render"), cli.run("logs"), cli.run("profiles", str(cli.home / "team.yaml"))]
    assert said[2].code == 0, said[2].err
    assert page(cli) == 200
    assert cli.pip("download", "--no-deps", "-d", str(cli.home / "got"), "acme-core").returncode == 0
    for done in (*said, cli.run("logs")):
        assert found_in(done.out + done.err) == []
    for path in (
        "/",
        "/root",
        "/root/private",
        "/root/dev",
        "/+status",
        "/+api",
        "/+deployer",
        "/root/private/+simple/",
    ):
        for accept in ("application/json", "text/html"):
            _, body = request(cli.port, "GET", path, headers={"Accept": accept})
            assert found_in(repr(body)) == [], path
    holders = {
        path.relative_to(cli.home) for path in cli.home.rglob("*") if path.is_file() and found_in(path.read_bytes())
    }
    assert holders == {Path("data/.deployer/credentials")}
    assert (cli.data / ".deployer/credentials").stat().st_mode & 0o777 == 0o600
    exported = cli.home / "exported"
    code = "import sys; from devpi_server.importexport import export; sys.exit(export())"
    words = [cli.python, "-c", code, "--serverdir", str(cli.data), str(exported)]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    assert (exported / "dataindex.json").exists()
    assert [path for path in exported.rglob("*") if path.is_file() and found_in(path.read_bytes())] == []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        for name in ("cmdline", "environ"):
            try:
                assert found_in((process / name).read_bytes()) == [], process
            except OSError:  # it has ended
                continue


def test_rotation_needs_no_restart_and_keeps_what_is_cached(cli: Cli, private: Upstream) -> None:
    assert cli.up().code == 0
    assert page(cli) == 200
    before = cli.run("status", "--json").data["started_at"]
    private.faults.auth = ("deploy", ROTATED)
    private.add(make_wheel("acme-tool", "1.0"))
    assert page(cli, "acme-tool") != 200
    done = cli.run("mirror", "rotate", "--json", env={"PRIVATE_TOKEN": ROTATED})
    assert (done.code, done.data["changed"], done.data["mirrors"]) == (0, True, ["root/private"])
    assert ROTATED not in done.out + done.err
    assert page(cli, "acme-tool") == page(cli) == 200
    assert cli.run("status", "--json").data["started_at"] == before
    again = cli.run("mirror", "rotate", "root/private", "--json", env={"PRIVATE_TOKEN": ROTATED})
    assert again.data["changed"] is False


def test_credentials_come_with_the_first_request_and_go_with_the_key(cli: Cli, private: Upstream) -> None:
    """An upstream that says 404 to strangers never asks for a password."""
    assert cli.up().code == 0
    private.faults.auth = None
    assert page(cli) == 200
    seen = [one.authorization for one in private.requests]
    assert seen and set(seen) == {basic(CANARY)}
    write_profile(cli, private, {"token": "command:printf short-lived"})
    assert cli.up().code == 0
    private.add(make_wheel("acme-tool", "1.0"))
    assert page(cli, "acme-tool") == 200
    assert private.requests[-1].authorization == "Bearer short-lived"
    write_profile(cli, private, {"token": "file:" + str(cli.home / "token"), "token_as": "user"})
    (cli.home / "token").write_text("as-user\n")
    assert cli.run("mirror", "rotate", "--profile", str(cli.home / "team.yaml")).code == 0
    private.add(make_wheel("acme-more", "1.0"))
    assert page(cli, "acme-more") == 200
    assert private.requests[-1].authorization == "Basic " + base64.b64encode(b"as-user:").decode()


def test_another_host_that_a_page_links_or_redirects_to_gets_no_credentials(cli: Cli, private: Upstream) -> None:
    wheel = make_wheel("elsewhere", "1.0")
    with Upstream([wheel]) as other:
        private.add(wheel)
        private.elsewhere[wheel.filename] = f"{other.url}/files/{wheel.filename}"
        private.redirects["/simple/moved/"] = f"{other.simple_url}elsewhere/"
        assert cli.up().code == 0
        _, html = request(cli.port, "GET", "/root/dev/+simple/elsewhere/", headers={"User-Agent": "pip/24"})
        assert b"elsewhere-1.0" in html
        got = cli.pip("download", "--no-deps", "-d", str(cli.home / "got"), "elsewhere")
        assert got.returncode == 0, got.stderr
        page(cli, "moved")
        assert {one.path for one in other.requests} == {f"/files/{wheel.filename}", "/simple/elsewhere/"}
        assert [one.authorization for one in other.requests] == [None, None]


@pytest.mark.parametrize(
    ("credentials", "told"),
    [
        ({"token": "env:NOT_SET"}, "the variable NOT_SET is not set"),
        ({"token": "file:/nonexistent/token"}, "/nonexistent/token can't be read"),
        ({"token": "command:false"}, "false ended with exit code 1"),
        ({"token": "command:nonexistent-program"}, "nonexistent-program can't be started"),
        ({"token": "command:true"}, "is empty"),
    ],
)
def test_what_can_not_be_resolved_is_told_before_anything_is_made(
    cli: Cli, private: Upstream, credentials: dict[str, str], told: str
) -> None:
    write_profile(cli, private, credentials)
    done = cli.up("--json")
    assert done.code == 3
    assert told in done.envelope["error"]["message"]
    assert done.envelope["error"]["hint"]
    assert not cli.data.exists()


def test_a_secret_in_the_profile_itself_is_refused_and_not_repeated(cli: Cli, private: Upstream) -> None:
    write_profile(cli, private, {"username": "deploy", "password": CANARY})
    done = cli.up()
    assert done.code == 3
    assert "reference" in done.err
    assert found_in(done.out + done.err) == []


def test_safe_defaults_of_what_is_made(cli: Cli) -> None:
    assert cli.up().code == 0
    _, answer = request(cli.port, "GET", "/root/dev?no_projects=")
    made = answer["result"]
    assert (made["acl_toxresult_upload"], made["mirror_whitelist"], made["volatile"]) == ([], [], False)
    assert request(cli.port, "PUT", "/mallory", body={"password": "x"})[0] == 403
    assert login(cli.port, "")[0] == 401
    known = cli.run("secret", "show").out.strip()
    token = login(cli.port, known)[1]["result"]["password"]
    assert cli.run("restart").code == 0
    assert request(cli.port, "GET", "/+api", headers=auth_header(token))[1]["result"]["authstatus"][0] == "ok"
