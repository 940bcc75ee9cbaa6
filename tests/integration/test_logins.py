"""Clients, and our own commands, with an index that not everybody may read."""

from __future__ import annotations

import netrc
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cli import Cli, Done
from tests.server_process import PATIENCE
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

OWN, PUBLIC = make_wheel("acme-core", "1.0"), make_wheel("demo", "1.0")
PROFILE: dict[str, Any] = {
    "extends": "default",
    "users": {"ann": {}, "bob": {}},
    "indexes": {
        "ann/private": {"type": "stage", "acl_upload": ["ann"], "read": ["ann"], "volatile": False},
        "root/dev": {"type": "ordered", "bases": ["ann/private", "root/pypi"], "read": ["ann"], "volatile": False},
    },
    "clients": {"configure": ["pip", "uv"]},
}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    home = tmp_path_factory.mktemp("home")
    deployment = Cli(home=home, engine="process")
    (home / OWN.filename).write_bytes(OWN.content)
    with Upstream([PUBLIC]) as upstream:
        indexes = {**PROFILE["indexes"], "root/pypi": {"type": "mirror", "url": upstream.simple_url}}
        where = {"engine": "process", "data": str(deployment.data), "network": {"port": deployment.port}}
        (home / "team.yaml").write_text(yaml.safe_dump({**PROFILE, **where, "indexes": indexes}))
        deployment.extra["DEPLOYER_PROFILE"] = str(home / "team.yaml")
        (home / ".netrc").write_text("machine git.example.com login ann password two\n")
        (home / ".netrc").chmod(0o644)
        try:
            done = deployment.run("up")
            assert done.code == 0, done.err
            assert "a read token for 127.0.0.1" in done.err
            done = deployment.run("package", "upload", str(home), "--index", "ann/private", "--as", "ann")
            assert done.code == 0, done.err
            yield deployment
        finally:
            deployment.clean()


def pip(cli: Cli, home: Path, project: str) -> Done:
    """Download by pip, with the files in ``home``."""
    target = home / "downloads"
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--no-input", "-d", str(target)]
    return _run(cli, home, [*words, project], PIP_DISABLE_PIP_VERSION_CHECK="1")


def uv(cli: Cli, home: Path, project: str) -> Done:
    words = ["uv", "pip", "install", "--no-deps", "--no-cache", "--target", str(home / "installed"), project]
    return _run(cli, home, [sys.executable, "-m", *words])


def _run(cli: Cli, home: Path, words: list[str], **more: str) -> Done:
    # Of the host's own settings none may lead elsewhere, or fill in.
    env = {key: value for key, value in cli.env.items() if not key.startswith(("PIP_", "UV_"))}
    env |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), **more}
    done = subprocess.run(words, env=env, cwd=home, capture_output=True, text=True, timeout=PATIENCE, check=False)
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def test_pip_and_uv_install_at_once_after_up(cli: Cli) -> None:
    file = cli.home / ".netrc"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = netrc.netrc(str(file))
    assert (found.authenticators("git.example.com") or ())[2] == "two"
    login = found.authenticators("127.0.0.1")
    assert login is not None
    assert (login[0], login[2].startswith("devpi-")) == ("root", True)
    for done in (pip(cli, cli.home, "acme-core"), uv(cli, cli.home, "acme-core"), uv(cli, cli.home, "demo")):
        assert done.code == 0, done.err
    # No file but this one has it.
    holding = [path for path in cli.home.rglob("*") if path.is_file() and login[2].encode() in path.read_bytes()]
    assert holding == [file]
    assert login[2] not in cli.run("logs", "-n", "100000").out


@pytest.mark.parametrize(
    "words",
    [
        "audit",
        "why acme-core",
        "package list --index ann/private --as ann",
        "package show acme-core",
        "index show root/dev",
        "exec -- python -m pip download --no-deps -d exec acme-core",
        "cache list",
    ],
)
def test_our_own_commands_read_it(cli: Cli, words: str) -> None:
    done = cli.run(*words.split())
    assert (done.code, "login" in done.err) == (0, False), done.err


def test_plan_sees_protected_indexes(cli: Cli) -> None:
    done = cli.run("plan")
    assert (done.code, "created" in done.out) == (0, False), done.out


def test_a_token_that_was_revoked_is_replaced_by_up(cli: Cli) -> None:
    assert cli.run("token", "revoke", "root", "all").code == 0
    assert pip(cli, cli.home, "acme-core").code != 0
    done = cli.run("exec", "--", "true")
    assert "deployer clients login" in done.err
    refused = cli.run("audit")
    assert (refused.code, "deployer clients login" in refused.err) == (7, True), refused.err
    done = cli.run("up")
    assert (done.code, "a read token for 127.0.0.1" in done.err) == (0, True), done.err
    assert pip(cli, cli.home, "acme-core").code == 0


def test_a_user_on_another_machine_logs_in_and_out(cli: Cli, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{cli.port}/root/dev/+simple/"
    mine = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / ".config"),
        "DEPLOYER_STATE_DIR": str(tmp_path / "s"),
    }
    (tmp_path / ".netrc").write_bytes(b"# mine\n")

    def login(secret: str, *words: str) -> Done:
        return cli.run("clients", "login", "--url", url, *words, env=mine, stdin=f"{secret}\n")

    def token(*words: str) -> str:
        return cli.run("token", "create", *words).out.strip()

    ann = token("ann", "--as", "ann", "--read", "--expires", "1h")
    for secret in (
        "wrong",
        token("bob", "--read"),
        token("ann", "--index", "root/dev"),
        token("ann", "--read", "--index", "ann/private"),
    ):
        refused = login(secret)
        assert (refused.code, "does not let" in refused.err) == (7, True), refused.err
        assert secret not in refused.err
    assert (tmp_path / ".netrc").read_bytes() == b"# mine\n"

    assert login(ann).code == 0
    assert cli.run("clients", "apply", "pip", "uv", "--url", url, env=mine).code == 0
    for done in (pip(cli, tmp_path, "acme-core"), uv(cli, tmp_path, "acme-core")):
        assert done.code == 0, done.err
    assert cli.run("clients", "logout", env=mine).code == 0
    assert (tmp_path / ".netrc").read_bytes() == b"# mine\n"

    password = cli.run("secret", "show", "ann").out.strip()
    words = ("--user", "ann", "--password-from", "env:ANN")
    done = cli.run("clients", "login", "--url", url, *words, env={**mine, "ANN": password})
    assert done.code == 0, done.err
    assert pip(cli, tmp_path, "acme-core").code == 0
    assert cli.run("clients", "undo", env=mine).code == 0
    assert (tmp_path / ".netrc").read_bytes() == b"# mine\n"


def test_twine_uploads_with_a_token_that_reads_nothing(cli: Cli, tmp_path: Path) -> None:
    wheel = make_wheel("acme-new", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    token = cli.run("token", "create", "ann", "--index", "ann/private").out.strip()
    words = [sys.executable, "-m", "twine", "upload", "--non-interactive", "--disable-progress-bar"]
    url = f"http://127.0.0.1:{cli.port}/ann/private/"
    more = {"TWINE_USERNAME": "__token__", "TWINE_PASSWORD": token, "PATH": os.environ["PATH"]}
    done = _run(cli, tmp_path, [*words, "--repository-url", url, str(tmp_path / wheel.filename)], **more)
    assert done.code == 0, done.out
    assert pip(cli, cli.home, "acme-new").code == 0
