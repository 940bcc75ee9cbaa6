"""A team's server as its page says, with a real directory: who gets what, with pip, uv, poetry, twine and devpi."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.engines import need
from tests.front import need_nginx
from tests.integration.cli import Cli
from tests.integration.real_clients import BESIDE, Clients
from tests.integration.test_ldap_logins import LDAP
from tests.ldap_directory import PASSWORDS, READER_PASSWORD, Directory
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PUBLIC = make_wheel("public", "1.0")
SECRET = make_wheel("acme-core", "1.0")
PAGE = (Path(__file__).parents[2] / "docs/how-to/team-server.md").read_text(encoding="utf-8")


@dataclass
class Team:
    cli: Cli
    host: str
    ca: Path
    token: str

    def login(self, user: str) -> str:
        """User and password as they stand in an address."""
        password = {**PASSWORDS, "ci": self.token}[user]
        return f"{'__token__' if user == 'ci' else user}:{quote(password, safe='')}@"

    def url(self, index: str = "root/dev/+simple", *, user: str = "") -> str:
        return f"https://{self.login(user) if user else ''}{self.host}/{index}/"

    def tool(self, home: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        home.mkdir(exist_ok=True)
        trust = {"PIP_CERT": str(self.ca), "SSL_CERT_FILE": str(self.ca), "REQUESTS_CA_BUNDLE": str(self.ca)}
        return subprocess.run(
            words,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "NO_COLOR": "1", **trust, **env},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def pip(self, home: Path, user: str, project: str) -> subprocess.CompletedProcess[str]:
        words = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-cache-dir", "--no-deps")
        url = self.url(user=user)
        return self.tool(home, *words, "--no-input", "--retries", "0", "-d", str(home / "got"), "-i", url, project)

    def uv(self, home: Path, user: str, project: str) -> subprocess.CompletedProcess[str]:
        words = (str(BESIDE / "uv"), "pip", "install", "--no-cache", "--no-deps", "--python", sys.executable)
        return self.tool(home, *words, "--target", str(home / "uv"), project, UV_DEFAULT_INDEX=self.url(user=user))


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The page's profile and commands, with the test's own directory, upstream and port."""
    need("process")
    need_nginx()
    home, port = tmp_path_factory.mktemp("team"), free_port()
    directory = Directory(tmp_path_factory.mktemp("slapd") / "directory")
    directory.start()
    with Upstream([PUBLIC]) as upstream:
        cli = Cli(home=home, engine="process", upstream=upstream.simple_url)
        try:
            (home / "ldap.yaml").write_text(yaml.safe_dump({"devpi-ldap": {"url": directory.url, **LDAP}}))
            found = re.search(r"```yaml\n(extends: default\n.*?)```", PAGE, re.DOTALL)
            assert found is not None
            profile = yaml.safe_load(found[1])
            profile["network"] |= {"bind": "127.0.0.1"}
            profile["network"]["tls"] |= {"port": port}
            (home / "team.yaml").write_text(yaml.safe_dump(profile))
            words = ("--profile", str(home / "team.yaml"))
            secret = {"LDAP_PASSWORD": READER_PASSWORD}
            locked = cli.run("plugins", "lock", *words)
            assert locked.code == 0, locked.err
            done = cli.up(*words, "--no-pip", env=secret)
            assert done.code == 0, done.err
            (home / "ca.pem").write_text(cli.run("tls", "ca").out)
            told = next(line for line in PAGE.splitlines() if line.startswith("deployer token create"))
            made = cli.run(*told.split()[1:], *words, env=secret)
            assert made.code == 0, made.err
            yield Team(cli=cli, host=f"localhost:{port}", ca=home / "ca.pem", token=made.out.strip())
        finally:
            cli.clean()
            directory.stop()


def test_a_member_of_the_group_uploads_and_a_job_installs(team: Team, tmp_path: Path) -> None:
    (tmp_path / SECRET.filename).write_bytes(SECRET.content)
    clients = Clients(team.cli, tmp_path)
    trust = {"REQUESTS_CA_BUNDLE": str(team.ca)}
    words = ("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", team.url("ci/private"))
    for user, code in (("bob", 1), ("alice", 0)):
        login = {"TWINE_USERNAME": user, "TWINE_PASSWORD": PASSWORDS[user]}
        done = clients.run("twine", *words, str(tmp_path / SECRET.filename), **login, **trust)
        assert done.returncode == code, done.stdout + done.stderr
    for user in ("alice", "ci"):
        for project in ("acme-core", "public"):
            for install in (team.pip, team.uv):
                done = install(tmp_path / user, user, project)
                assert done.returncode == 0, done.stderr


def test_nobody_else_gets_anything_of_it(team: Team, tmp_path: Path) -> None:
    for user in ("bob", ""):
        for project in ("acme-core", "public"):
            for install in (team.pip, team.uv):
                done = install(tmp_path / f"as-{user}", user, project)
                assert done.returncode != 0, done.stdout
                assert "acme_core-1.0" not in done.stdout + done.stderr
    # Who has an account gets public packages from their mirror.
    words = (sys.executable, "-m", "pip", "download", "--no-cache-dir", "--no-deps", "--no-input", "-d", str(tmp_path))
    for user, works in (("bob", True), ("", False)):
        done = team.tool(tmp_path / "home", *words, "-i", team.url("root/pypi/+simple", user=user), "public")
        assert (done.returncode == 0) is works, done.stderr


def test_a_job_uploads_with_its_token_and_makes_nothing_else(team: Team, tmp_path: Path) -> None:
    wheel = make_wheel("acme-job", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    words = (str(BESIDE / "uv"), "publish", "--no-config", "--publish-url", team.url("ci/private"))
    done = team.tool(tmp_path, *words, wheel.filename, UV_PUBLISH_TOKEN=team.token)
    assert done.returncode == 0, done.stderr
    assert team.pip(tmp_path, "ci", "acme-job").returncode == 0


def test_devpi_client_logs_in_with_the_account_of_the_directory(team: Team, tmp_path: Path) -> None:
    wheel = make_wheel("acme-tool", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    clients, where = Clients(team.cli, tmp_path), ("--clientdir", str(tmp_path / "devpi"))
    for words in (
        ("use", *where, f"https://{team.host}"),
        ("login", *where, "alice", "--password", PASSWORDS["alice"]),
        ("use", *where, "ci/private"),
        ("upload", *where, wheel.filename),
    ):
        done = clients.run("devpi", *words, REQUESTS_CA_BUNDLE=str(team.ca))
        assert done.returncode == 0, done.stdout + done.stderr
    assert team.pip(tmp_path, "alice", "acme-tool").returncode == 0


def test_poetry_locks_with_a_token(team: Team, tmp_path: Path, poetry: str) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["public"]\n'
        f'[[tool.poetry.source]]\nname = "team"\nurl = "{team.url()}"\npriority = "primary"\n'
    )
    login = {"POETRY_HTTP_BASIC_TEAM_USERNAME": "__token__", "POETRY_HTTP_BASIC_TEAM_PASSWORD": team.token}
    refused = team.tool(tmp_path, poetry, "lock", "--no-interaction")
    assert refused.returncode != 0, refused.stdout
    done = team.tool(tmp_path, poetry, "lock", "--no-interaction", **login)
    assert done.returncode == 0, done.stdout + done.stderr
    locked = (tmp_path / "poetry.lock").read_text()
    assert PUBLIC.sha256 in locked and team.token not in locked
