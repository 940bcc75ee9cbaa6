"""Every secret of a deployment is in its own file, and in nothing else that anybody can look at; and can be ended."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli import Cli
from tests.integration.deployments import DEPLOYMENTS, ENGINES, deployed
from tests.server_process import auth_header, login, request
from tests.upstream import Faults, Upstream, make_wheel

CANARY = f"c4n4ry-{os.getpid()}-of-the-private-index"
ROTATED = f"r0t4ted-{os.getpid()}-of-the-private-index"
BLOCK = 1 << 22
SECRET_FILES = {Path(f"data/.deployer/{name}") for name in ("credentials", "root-password", "secret", "proof-key")} | {
    Path("state/NAME/secrets/dev.password")
}


@pytest.fixture(scope="module")
def private() -> Iterator[Upstream]:
    with Upstream([make_wheel("acme-core", "1.0")], Faults(auth=("deploy", CANARY))) as running:
        yield running


@pytest.fixture(scope="module")
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, private: Upstream) -> Iterator[Cli]:
    private.faults.auth = ("deploy", CANARY)
    credentials = {"username": "deploy", "password": "env:PRIVATE_TOKEN"}
    profile: dict[str, Any] = {
        "server": {"web": "devpi-web"},
        "users": {"dev": {}},
        "indexes": {
            "root/pypi": {"type": "mirror", "url": "http://127.0.0.1:9/simple/"},
            "root/private": {"type": "mirror", "url": private.simple_url, "credentials": credentials},
            "root/dev": {"type": "stage", "bases": ["root/private"], "acl_upload": ["dev"], "volatile": True},
        },
    }
    home = tmp_path_factory.mktemp("sweep")
    with deployed(request, home, profile, PRIVATE_TOKEN=CANARY, DEPLOYER_DEBUG="1") as running:
        yield running


class Needles:
    """All secrets of a deployment, as they may be spelt."""

    def __init__(self, cli: Cli) -> None:
        private = cli.data / ".deployer"
        root = (private / "root-password").read_text().strip()
        dev = next((cli.home / "state").rglob("dev.password")).read_text().strip()
        pairs = (("deploy", CANARY), ("deploy", ROTATED), ("root", root), ("dev", dev))
        keys = [(private / name).read_text().strip() for name in ("secret", "proof-key")]
        plain = [*(secret for _, secret in pairs), *keys]
        self.spelt = {secret.encode() for secret in plain} | {secret.encode().hex().encode() for secret in plain}
        self.spelt |= {base64.b64encode(f"{user}:{secret}".encode()) for user, secret in pairs}

    def within(self, text: str | bytes) -> bool:
        content = text if isinstance(text, bytes) else text.encode()
        return any(needle in content for needle in self.spelt)

    def within_stream(self, *words: str) -> bool:
        """Whether what a program writes has one in it; read in blocks that overlap."""
        longest = max(map(len, self.spelt))
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            kept, found, size = b"", False, 0
            while block := process.stdout.read(BLOCK):
                found |= self.within(kept + block)
                kept, size = block[-longest:], size + len(block)
        assert process.returncode == 0
        assert size, words
        return found


def use(cli: Cli) -> list[str]:
    """Do all that has to do with secrets, and much else; everything that was said."""
    wheel = make_wheel("mine", "1.0")
    (cli.home / wheel.filename).write_bytes(wheel.content)
    said = []
    for words in (
        ("up",),
        ("plan",),
        ("render",),
        ("status", "--check"),
        ("doctor",),
        ("index", "apply"),
        ("index", "list"),
        ("index", "show", "root/private"),
        ("index", "export"),
        ("mirror", "list"),
        ("user", "list"),
        ("user", "passwd", "dev"),
        ("user", "passwd", "root"),
        ("package", "upload", wheel.filename, "--index", "root/dev", "--as", "dev"),
        ("package", "list", "--index", "root/dev"),
        ("package", "show", "acme-core", "--index", "root/dev"),
        ("audit", "acme-core"),
        ("stats",),
        ("offline", "status"),
        ("token", "list", "dev"),
        ("restart",),
        ("profiles",),
    ):
        for more in ((), ("--json",)):
            done = cli.run(*words, *more, "--debug")
            # The upstream of root/pypi is down, which the doctor tells.
            assert done.code == (9 if words == ("doctor",) else 0), done.err
            said += [done.out, done.err]
    rotated = cli.run("mirror", "rotate", "--json", env={"PRIVATE_TOKEN": ROTATED})
    assert rotated.data["changed"] is True
    said += [rotated.out, rotated.err, cli.run("logs", "-n", "100000").out]
    return said


def known_as_root(cli: Cli) -> dict[str, str]:
    return auth_header(login(cli.port, cli.run("secret", "show").out.strip())[1]["result"]["password"])


@pytest.fixture
def exporter(cli: Cli, request: pytest.FixtureRequest) -> str:
    """An interpreter with the devpi-server that the data is of."""
    made_by_7 = cli.run("status", "--json").data["server_version"].startswith("7.")
    return str(request.getfixturevalue("python7")) if made_by_7 else sys.executable


@pytest.mark.parametrize("cli", DEPLOYMENTS[1::2], indirect=True)
@pytest.mark.endurance_of("docker-6")
def test_secrets_are_in_their_own_files_and_nowhere_else(
    cli: Cli, private: Upstream, tmp_path: Path, exporter: str
) -> None:
    begun = str(int(time.time()))
    page = {"User-Agent": "pip/24", "Accept": "text/html"}
    assert request(cli.port, "GET", "/root/dev/+simple/acme-core/", headers=page)[0] == 200
    before = Needles(cli)
    said = use(cli)
    private.faults.auth = ("deploy", ROTATED)
    private.add(make_wheel("acme-tool", "1.0"))
    assert request(cli.port, "GET", "/root/dev/+simple/acme-tool/", headers=page)[0] == 200
    needles = Needles(cli)
    needles.spelt |= before.spelt
    assert all(needles.within(spelt) for spelt in (CANARY, ROTATED))

    assert [text for text in said if needles.within(text)] == []
    for path in ("", "root", "root/private", "root/dev", "+status", "+api", "+deployer", "root/private/acme-core"):
        for accept in ("application/json", "text/html"):
            for headers in ({}, known_as_root(cli)):
                _, body = request(cli.port, "GET", f"/{path}", headers={"Accept": accept, **headers})
                assert not needles.within(repr(body)), path
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:  # it has ended
                continue
            assert not needles.within(content), process

    holders = {
        Path(str(path.relative_to(cli.home)).replace(cli.name, "NAME"))
        for path in cli.home.rglob("*")
        if path.is_file() and needles.within(path.read_bytes())
    }
    assert holders == SECRET_FILES
    for path in SECRET_FILES:
        assert (cli.home / str(path).replace("NAME", cli.name)).stat().st_mode & 0o777 == 0o600, path

    copy, exported = tmp_path / "copy", tmp_path / "exported"
    shutil.copytree(cli.data, copy, ignore=shutil.ignore_patterns("run"))
    code = "import sys; from devpi_server.importexport import export; sys.exit(export())"
    words = [exporter, "-c", code, "--serverdir", str(copy), str(exported)]
    subprocess.run(words, check=True, capture_output=True, timeout=300)
    assert (exported / "dataindex.json").exists()
    assert [path for path in exported.rglob("*") if path.is_file() and needles.within(path.read_bytes())] == []

    image = subprocess.check_output(["docker", "inspect", "--format={{.Image}}", cli.name], text=True).strip()
    for words in (
        ("inspect", cli.name),
        ("inspect", image),
        ("history", "--no-trunc", image),
        ("logs", cli.name),
        ("exec", cli.name, "env"),
        ("top", cli.name, "-eo", "pid,args"),
        ("events", "--since", begun, "--until", str(int(time.time()) + 1)),
        ("save", image),
        ("export", cli.name),
    ):
        assert not needles.within_stream("docker", *words), words


@pytest.mark.parametrize("cli", ENGINES, indirect=True)
def test_a_new_secret_file_ends_every_token(cli: Cli) -> None:
    """As SECURITY.md tells whom it concerns to do."""
    upload = cli.run("token", "create", "dev", "--index", "root/dev").out.strip()
    known = {"root": known_as_root(cli), "dev": {"X-Devpi-Auth": base64.b64encode(f"dev:{upload}".encode()).decode()}}

    def states() -> list[str]:
        answers = [request(cli.port, "GET", "/+api", headers=headers) for headers in known.values()]
        return [answer["result"]["authstatus"][0] if status == 200 else str(status) for status, answer in answers]

    assert states() == ["ok", "ok"]
    assert cli.run("restart").code == 0
    assert states() == ["ok", "ok"]
    (cli.data / ".deployer/secret").unlink()
    assert states() == ["ok", "ok"]
    assert cli.run("restart").code == 0
    assert states() == ["noauth", "403"]
    assert request(cli.port, "PATCH", "/root", body={"email": "a@example.com"}, headers=known["root"])[0] == 403
    assert login(cli.port, cli.run("secret", "show").out.strip())[0] == 200
    assert (cli.data / ".deployer/secret").stat().st_mode & 0o777 == 0o600
