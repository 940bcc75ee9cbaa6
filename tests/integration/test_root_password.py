"""Root's password changes: what is kept of it stays what the server has, whenever the change is cut short."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.engines import need
from tests.integration.cli import Cli
from tests.integration.test_crash import ROOT, crash, effects, points
from tests.server_process import auth_header, login, request

PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)


def write_profile(cli: Cli, title: str) -> None:
    """A profile that differs by a title from what another one made."""
    indexes = {
        "root/pypi": {"type": "mirror", "url": "http://127.0.0.1:9/simple/"},
        "root/dev": {"type": "stage", "bases": ["root/pypi"], "title": title},
    }
    where = str(cli.data) if cli.engine == "process" else f"volume:{cli.name}"
    top = {"extends": "default", "engine": cli.engine, "data": where, "network": {"port": cli.port}}
    (cli.home / "team.yaml").write_text(yaml.safe_dump({**top, "indexes": indexes}))


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    engine = getattr(request, "param", "process")
    need(engine)
    profile = str(tmp_path / "team.yaml")
    extra = {"DEPLOYER_PROFILE": profile, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    made = Cli(home=tmp_path, engine=engine, extra=extra)
    write_profile(made, "first")
    try:
        done = made.run("up", "--no-pip")
        assert done.code == 0, done.err
        yield made
    finally:
        made.clean()


def kept_here(cli: Cli) -> list[Path]:
    """What this host keeps beside the server directory."""
    return list((cli.home / "state").rglob("root.password"))


def assert_root_works(cli: Cli, title: str) -> None:
    """What needs root's password works, and the one that is kept is the server's."""
    write_profile(cli, title)
    done = cli.run("index", "apply")
    assert done.code == 0, done.err
    assert title in done.err
    shown = cli.run("secret", "show")
    assert login(cli.port, shown.out.strip())[0] == 200
    if cli.engine == "process":
        assert (cli.data / ".deployer/root-password").read_text() == shown.out
    assert kept_here(cli) == []


@pytest.mark.parametrize("cli", [PROCESS, DOCKER], indirect=True)
def test_a_new_password_takes_the_place_of_the_old_one(cli: Cli) -> None:
    """On docker in a volume, which only the server itself can write."""
    before = cli.run("secret", "show").out.strip()
    assert cli.run("user", "passwd", "--password-stdin", stdin="chosen by hand\n").code == 0
    assert cli.run("secret", "show").out == "chosen by hand\n"
    assert (login(cli.port, before)[0], kept_here(cli)) == (401, [])
    assert_root_works(cli, "second")
    again = cli.run("up", "--no-pip", "--set", "server.threads=20")
    assert again.code == 0, again.err
    assert cli.run("user", "passwd").code == 0
    assert cli.run("secret", "show").out != "chosen by hand\n"
    assert_root_works(cli, "third")


@pytest.mark.server
def test_a_change_that_is_killed_at_any_moment_leaves_a_password_that_works(cli: Cli) -> None:
    words = ("user", "passwd")
    told = points(effects(cli, words))
    moments = [point for point in told if "password" in point.effect or point.effect == "connect"]
    assert len(moments) >= 5, told
    for number, point in enumerate(moments):
        code, said = crash(cli, point, "SIGKILL", words)
        assert code == -9, (point, said)
        assert_root_works(cli, f"after {number}")


@pytest.mark.server
def test_a_password_that_somebody_else_changed_is_told_and_taken_when_it_is_given(cli: Cli) -> None:
    known = cli.run("secret", "show").out.strip()
    auth = auth_header(login(cli.port, known)[1]["result"]["password"])
    assert request(cli.port, "PATCH", "/root", body={"password": "somebody else's"}, headers=auth)[0] == 200
    write_profile(cli, "second")
    for words in (("index", "apply"), ("up", "--no-pip"), ("user", "passwd")):
        done = cli.run(*words)
        assert done.code == 7
        cause, cure = [line for line in done.err.splitlines() if "password" in line or "secret set" in line][-2:]
        assert "the stored password is not the server's" in cause
        assert f"deployer secret set --name {cli.name} root" in cure
    assert cli.run("secret", "set", stdin="a wrong guess\n").code == 0
    assert cli.run("index", "apply").code == 7
    assert cli.run("secret", "set", stdin="somebody else's\n").code == 0
    assert_root_works(cli, "second")
