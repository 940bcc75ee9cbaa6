"""The pages on moving between machines, from a plain devpi and back to one, followed line by line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import pyrage
import pytest

from tests.engines import need
from tests.indexed_server import JSON, get, upload
from tests.integration.cli import Cli
from tests.plain_devpi import PlainDevpi, free_port, init
from tests.server_process import auth_header, login, request
from tests.typed_pages import HOW_TO, PATH, blocks, type_in
from tests.upstream import make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

WHEEL = make_wheel("acme-core", "1.0")
NOWHERE = "http://127.0.0.1:9/simple/"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], Cli]]:
    """Make a machine: a home of its own, with nothing in it."""
    with ExitStack() as stack:

        def make(name: str) -> Cli:
            home = tmp_path / name
            home.mkdir()
            cli = Cli(home=home, engine="process", upstream=NOWHERE, name="devpi")
            stack.callback(cli.clean)
            return cli

        yield make


def environment(cli: Cli) -> dict[str, str]:
    here = {"DEPLOYER_ENGINE": cli.engine, "DEPLOYER_PORT": str(cli.port), "DEPLOYER_UPSTREAM": NOWHERE}
    return {**cli.env, **here, "PATH": PATH}


def follow(cli: Cli, lines: str, **replaced: str) -> str:
    return type_in(lines, home=cli.home, env=environment(cli), replaced={**inside(cli), **replaced})


def inside(cli: Cli) -> dict[str, str]:
    """Where this machine has the places of the pages."""
    return {"/srv/": f"{cli.home}/srv/", "/media/disk": f"{cli.home.parent}/disk"}


def upload_wheel(cli: Cli) -> None:
    (cli.home / WHEEL.filename).write_bytes(WHEEL.content)
    done = cli.run("package", "upload", "--index", "root/dev", str(cli.home / WHEEL.filename))
    assert done.code == 0, done.err


def serves(port: int, index: str) -> bool:
    """Whether the index serves the wheel, byte for byte."""
    page = get(port, f"/{index}/+simple/acme-core/", JSON)
    path = f"/{index}/+f/{WHEEL.sha256[:3]}/{WHEEL.sha256[3:16]}/{WHEEL.filename}"
    return WHEEL.sha256.encode() in page.body and get(port, path, {}).body == WHEEL.content


def test_a_new_laptop(machine: Callable[[str], Cli]) -> None:
    take, restore, check, remove = blocks("new-laptop.md")
    old, new = machine("old"), machine("new")
    assert old.run("up", "--engine", "process", "--port", str(old.port), "--upstream", NOWHERE).code == 0
    upload_wheel(old)
    follow(old, take)
    assert "acme-core" in follow(new, restore)
    assert serves(new.port, "root/dev")
    assert str(new.port) in new.pip_conf.read_text()
    follow(new, check)
    follow(old, remove)
    assert not (old.home / ".cache/devpi").exists() and list((old.home.parent / "disk").rglob("*.json"))
    assert serves(new.port, "root/dev")


@pytest.mark.docker
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes another user")
@pytest.mark.skipif(shutil.which("rsync") is None, reason="rsync is not installed (Debian: apt install rsync)")
def test_the_server_replaced_by_another_engine_user_home_and_path(tmp_path: Path, other_user: OtherUser) -> None:
    need("docker")
    prepare, stop, restore, remove = blocks("replace-server.md")
    key, new = pyrage.x25519.Identity.generate(), other_user
    old = Cli(home=tmp_path / "old", engine="docker", upstream=NOWHERE)
    old.home.mkdir()
    (old.home / "team.yaml").write_text(f"extends: default\nbackup: {{recipient: {key.to_public()}}}\n")
    (new.home / "key.txt").write_text(f"{key}\n")
    (new.home / "srv").mkdir()
    # Here root copies, and on the page the user of the new machine.
    moved = {"new.example.com:/srv/": f"{new.home}/srv/", "rsync": f"rsync --chown={new.uid}:{new.uid}"}
    try:
        assert old.up("--no-pip", "--profile", f"{old.home}/team.yaml").code == 0
        upload_wheel(old)
        follow(old, prepare, **moved)
        later = make_wheel("later", "1.0")
        (old.home / later.filename).write_bytes(later.content)
        assert old.run("package", "upload", "--index", "root/dev", str(old.home / later.filename)).code == 0
        follow(old, stop, **moved)
        password = old.run("secret", "show", "root").out
        type_in(restore, home=new.home, env=environment(new), replaced=inside(new), before=new.words)
        assert serves(new.port, "root/dev")
        assert new.run("package", "list", "--index", "root/dev", "--json").data["projects"] == ["acme-core", "later"]
        assert new.run("secret", "show", "root").out == password
        assert {path.lstat().st_uid for path in (new.home / "devpi").rglob("*")} == {new.uid}
        follow(old, remove)
        assert serves(new.port, "root/dev")
    finally:
        old.clean()


@dataclass
class OtherUser(Cli):
    """A user without sub-ids and rights, but for reading: Python and this repository may be root's alone."""

    uid: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        right = "+dac_read_search"
        ids = (f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups")
        return ("setpriv", *ids, f"--inh-caps={right}", f"--ambient-caps={right}")

    def argv(self, *words: str) -> list[str]:
        return [*self.words, *super().argv(*words)]


@pytest.fixture
def other_user() -> Iterator[OtherUser]:
    home = Path(mkdtemp(prefix="deployer-new-"))  # tmp_path is root's alone
    user = f"dep{uuid.uuid4().hex[:8]}"
    subprocess.run(["useradd", "--home-dir", str(home), "--user-group", user], check=True, capture_output=True)
    uid = int(subprocess.check_output(["id", "--user", user], text=True))
    os.chown(home, uid, uid)
    made = OtherUser(home=home, engine="process", upstream=NOWHERE, name="devpi", uid=uid)
    try:
        yield made
    finally:
        made.clean()
        subprocess.run(["userdel", "--force", user], check=False, capture_output=True)
        shutil.rmtree(home)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[PlainDevpi]:
    """A devpi-server that nothing of deployer's has seen, with a user, an index, and an upload."""
    init(tmp_path / "data-server")
    server = PlainDevpi(tmp_path / "data-server")
    server.start()
    try:
        auth = auth_header(login(server.port, server.password)[1]["result"]["password"])
        mirror = {"type": "mirror", "mirror_url": NOWHERE}
        stage = {"type": "stage", "bases": ["root/pypi"], "acl_upload": ["team", "root"]}
        assert request(server.port, "PUT", "/team", body={"password": "of the team"}, headers=auth)[0] == 201
        for index, body in (("root/pypi", mirror), ("team/prod", stage)):
            assert request(server.port, "PUT", f"/{index}", body=body, headers=auth)[0] == 200
        assert upload(server, auth, "team/prod", WHEEL) == 200
    finally:
        server.stop()
    yield server


def test_from_a_plain_devpi(machine: Callable[[str], Cli], plain: PlainDevpi) -> None:
    take, profile = blocks("from-devpi.md")
    cli = machine("new")
    (cli.home / "srv").mkdir()
    before = {path: path.stat().st_mtime_ns for path in plain.serverdir.rglob("*")}
    here = {"3141": str(cli.port), "./data-server": str(plain.serverdir), "$ROOT_PASSWORD": plain.password}
    said = follow(cli, take, **here)
    assert "keep index team/prod" in said
    assert before == {path: path.stat().st_mtime_ns for path in plain.serverdir.rglob("*")}
    assert serves(cli.port, "team/prod")
    assert request(cli.port, "POST", "/+login", body={"user": "team", "password": "of the team"})[0] == 200
    said = follow(cli, profile, **here)
    assert "keep index" not in said and "team/prod" in (cli.home / "team.yaml").read_text()
    assert serves(cli.port, "team/prod")


PROFILE = """
extends: default
users: {team: {}}
indexes:
  root/pypi: {type: mirror}
  root/dev: {type: ordered, bases: [root/pypi], volatile: false}
  team/prod: {type: stage, bases: [], acl_upload: [team, root]}
"""


def test_back_to_a_plain_devpi(machine: Callable[[str], Cli]) -> None:
    leave, export = blocks("to-devpi.md")
    cli = machine("old")
    (cli.home / "srv").mkdir()
    (cli.home / "team.yaml").write_text(PROFILE)
    place = ("--engine", "process", "--port", str(cli.port), "--upstream", NOWHERE, "--no-pip")
    up = cli.run("up", "--profile", f"{cli.home}/team.yaml", *place)
    assert up.code == 0, up.err
    for index in ("root/dev", "team/prod"):
        (cli.home / WHEEL.filename).write_bytes(WHEEL.content)
        assert cli.run("package", "upload", "--index", index, str(cli.home / WHEEL.filename)).code == 0
    password = cli.run("secret", "show", "root").out.strip()
    stop, copy, install, serve, _ = leave.split("\n")
    assert install == "pip install devpi-server" and serve == "devpi-server --serverdir /srv/plain --port 3141"
    follow(cli, f"{stop}\n{copy}")
    server = PlainDevpi(cli.home / "srv/plain", port=free_port(), password=password)
    server.start()
    try:
        assert serves(server.port, "root/dev") and serves(server.port, "team/prod")
        auth = auth_header(login(server.port, password)[1]["result"]["password"])
        more = make_wheel("more", "1.0")
        assert upload(server, auth, "team/prod", more) == 200
        assert upload(server, auth, "root/dev", more) == 403  # as the page says of ordered indexes
    finally:
        server.stop()
    follow(cli, export)
    imported = PlainDevpi(cli.home / "srv/imported", port=free_port(), password=password)
    imported.start()
    try:
        assert serves(imported.port, "root/dev") and serves(imported.port, "team/prod")
        auth = auth_header(login(imported.port, password)[1]["result"]["password"])
        assert upload(imported, auth, "root/dev", more) == 200
    finally:
        imported.stop()
    assert cli.run("start").code == 0
    assert serves(cli.port, "root/dev")


@pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed (Debian: apt install restic)")
def test_back_up_and_restore(machine: Callable[[str], Cli], tmp_path: Path) -> None:
    """The page on backups; another directory stands for the SFTP server, which test_backup_remote.py has."""
    create, verify, restore, back, prune, fetch = blocks("backup.md")
    old, new, third = machine("old"), machine("new"), machine("third")
    key = pyrage.x25519.Identity.generate()
    for cli in (old, new, third):
        (cli.home / "key.txt").write_text(f"{key}\n")
        (cli.home / "restic-password").write_text("of the repository\n")
    page = (HOW_TO / "backup.md").read_text()
    first, second, *_ = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    recipient = next(line for line in first.splitlines() if "recipient:" in line)
    settings = f"extends: default\n{second}{recipient.replace('age1…', str(key.to_public()))}\n"
    there = {"sftp:backup@example.com:index": f"{tmp_path}/index"}
    places = {**inside(old), **there}
    for written, here in places.items():
        settings = settings.replace(written, here)
    (old.home / "team.yaml").write_text(settings)
    words = ("--engine", "process", "--port", str(old.port), "--upstream", NOWHERE, "--no-pip")
    up = old.run("up", "--profile", "team.yaml", *words)
    assert up.code == 0, up.err
    upload_wheel(old)
    follow(old, create)
    follow(old, verify)
    shutil.copytree(old.home / "srv", new.home / "srv")
    follow(new, restore)
    assert serves(new.port, "root/dev")
    (name,) = (path.stem for path in (old.home / "srv/backups/backups").iterdir())
    password = old.run("secret", "show", "root").out
    later = make_wheel("later", "1.0")
    (old.home / later.filename).write_bytes(later.content)
    assert old.run("package", "upload", "--index", "root/dev", str(old.home / later.filename)).code == 0
    follow(old, back, **{"0012-20260301T020000Z": name})
    assert serves(old.port, "root/dev")
    assert old.run("package", "list", "--index", "root/dev", "--json").data["projects"] == ["acme-core"]
    follow(old, prune)
    follow(third, fetch, **there)
    assert serves(third.port, "root/dev")
    assert third.run("secret", "show", "root").out == password
