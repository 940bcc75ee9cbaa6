"""A project of an ordered index is served by the base that served it first, until another one is accepted.

On devpi-server 7: ``test_guard.py``.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.indexed_server import FILE, HTML, JSON, Got, get, upload
from tests.integration.cli import Cli
from tests.integration.deployments import DEPLOYMENTS, deployed
from tests.integration.installers import INSTALLERS
from tests.server_process import auth_header, login, request
from tests.upstream import Distribution, Upstream, make_wheel

_count = itertools.count()


@dataclass
class World:
    cli: Cli
    public: Upstream
    private: Upstream
    auth: dict[str, str]
    project: str = field(default_factory=lambda: f"shop{next(_count)}")

    def make(self, version: str, *, at: Upstream | None = None) -> Distribution:
        made = make_wheel(self.project, version)
        if at is not None:
            at.add(made)
        return made

    def page(self, headers: Any = JSON, index: str = "root/dev") -> Got:
        return get(self.cli.port, f"/{index}/+simple/{self.project}/", headers)

    def names(self, index: str = "root/dev") -> set[str]:
        got = self.page(index=index)
        assert got.status == 200, got
        return {file["filename"] for file in json.loads(got.body)["files"]}

    def is_refused(self, first: str, now: str) -> bool:
        for headers in (JSON, HTML, JSON):
            got = self.page(headers)
            if got.status != 403:
                return False
            assert got.headers["x-deployer-held"] == "changed"
            line = f"{self.project} is held back by changed of root/dev: {first} served it first, and {now} would"
            assert got.body.decode().startswith(line)
        return True

    def upload(self, made: Distribution, index: str = "root/own") -> None:
        assert upload(self.cli, self.auth, index, made) == 200

    def delete(self, index: str = "root/own") -> None:
        assert request(self.cli.port, "DELETE", f"/{index}/{self.project}", headers=self.auth)[0] == 200

    def refresh(self) -> None:
        assert self.cli.run("mirror", "refresh", "root/private", self.project).code == 0

    def declare(self, bases: list[str], **dev: Any) -> str:
        """Apply a profile with this order of bases; what the command shows."""
        path = Path(self.cli.extra["DEPLOYER_PROFILE"])
        profile = yaml.safe_load(path.read_text())
        profile["indexes"]["root/dev"] = {"type": "ordered", "bases": bases, **dev}
        path.write_text(yaml.safe_dump(profile))
        done = self.cli.run("index", "apply")
        assert done.code == 0, done.err
        return done.err


BASES = ["root/own", "root/private", "root/pypi"]


@pytest.fixture(scope="module", params=DEPLOYMENTS[:1])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Upstream() as public, Upstream() as private:
        indexes = {
            "root/pypi": {"type": "mirror", "url": public.simple_url},
            "root/private": {"type": "mirror", "url": private.simple_url},
            "root/own": {"type": "stage", "bases": [], "volatile": True},
            "root/dev": {"type": "ordered", "bases": BASES},
        }
        profile = {"indexes": indexes, "server": {"not_found_expiry": 0}}
        with deployed(request, tmp_path_factory.mktemp("takeovers"), profile) as cli:
            password = cli.run("secret", "show").out.strip()
            auth = auth_header(login(cli.port, password)[1]["result"]["password"])
            yield World(cli, public, private, auth)


@pytest.fixture
def world(running: World) -> World:
    return World(running.cli, running.public, running.private, running.auth)


def test_an_upload_does_not_take_a_name_over_before_it_is_accepted(world: World) -> None:
    theirs, ours = world.make("1.0", at=world.public), make_wheel(world.project, "9.0")
    assert world.names() == {theirs.filename}
    world.upload(ours)
    assert world.is_refused("root/pypi", "root/own")
    for install in INSTALLERS.values():
        assert not install(f"{world.cli.url}/root/dev/+simple/", world.project).succeeded
    listed = get(world.cli.port, f"/root/dev/{world.project}", {"Accept": "application/json"}).body
    assert b"9.0" not in listed and b"1.0" not in listed
    assert get(world.cli.port, f"/root/dev/{world.project}/9.0", {"Accept": "application/json"}).status == 404
    shown = get(world.cli.port, f"/root/dev/{world.project}", {**HTML, "User-Agent": "Mozilla/5.0"})
    assert shown.status == 403 and b"root/pypi served it first" in shown.body
    changes = world.cli.run("audit", "--changes", "--json")
    assert changes.code == 9
    taken = {"index": "root/dev", "project": world.project, "first": "root/pypi", "now": "root/own"}
    assert changes.data["taken"] == [taken]
    assert changes.envelope["error"]["hint"].endswith(f" root/dev {world.project}")
    why = world.cli.run("why", world.project)
    assert why.code == 0 and f"deployer index accept root/dev {world.project}" in why.out, why.out
    assert world.names("root/pypi") == {theirs.filename}  # each index itself serves what it has
    accepted = world.cli.run("index", "accept", "root/dev", world.project, "--json")
    assert (accepted.code, accepted.data["accepted"]) == (0, [taken])
    logged = world.cli.run("logs", "--changes", "--json").data["changes"][-1]
    assert (logged["action"], logged["target"], logged["details"]) == ("accept bases", "root/dev", [world.project])
    assert world.names() == {ours.filename}
    assert world.cli.run("audit", "--changes").code == 0
    world.delete()
    assert world.is_refused("root/own", "root/pypi")  # a name that was ours does not become another's
    assert world.cli.run("index", "accept", "root/dev", world.project).code == 0
    assert world.names() == {theirs.filename}


def test_a_private_index_that_has_the_name_later_is_refused(world: World) -> None:
    theirs = world.make("1.0", at=world.public)
    assert world.names() == {theirs.filename}
    ours = world.make("0.9", at=world.private)
    world.refresh()
    assert world.is_refused("root/pypi", "root/private")
    assert world.cli.run("restart").code == 0
    assert world.is_refused("root/pypi", "root/private")
    assert world.cli.run("index", "accept", "root/dev", world.project).code == 0
    assert world.names() == {ours.filename}


def test_a_new_order_is_accepted_by_one_command(world: World) -> None:
    theirs, ours = world.make("2.0", at=world.public), world.make("1.0", at=world.private)
    other = World(world.cli, world.public, world.private, world.auth)
    alone = other.make("1.0", at=world.public)
    assert world.names() == {ours.filename}
    assert other.names() == {alone.filename}
    shown = world.declare(["root/own", "root/pypi", "root/private"])
    assert "a project that another base would serve now is refused until `deployer index accept" in shown
    try:
        assert world.is_refused("root/private", "root/pypi")
        assert other.names() == {alone.filename}
        accepted = world.cli.run("index", "accept", "root/dev", "--json")
        assert accepted.code == 0
        assert world.project in {one["project"] for one in accepted.data["accepted"]}
        assert other.project not in {one["project"] for one in accepted.data["accepted"]}
        assert world.names() == {theirs.filename}
    finally:
        world.declare(BASES)
        assert world.cli.run("index", "accept", "root/dev").code == 0


def test_a_declared_owner_needs_no_acceptance(world: World) -> None:
    theirs = world.make("1.0", at=world.public)
    assert world.names() == {theirs.filename}
    ours = world.make("0.5", at=world.private)
    world.refresh()
    assert world.is_refused("root/pypi", "root/private")
    path = Path(world.cli.extra["DEPLOYER_PROFILE"])
    before = path.read_text()
    profile = yaml.safe_load(before)
    profile["indexes"]["root/private"]["owns"] = [f"{world.project}*"]
    path.write_text(yaml.safe_dump(profile))
    assert world.cli.run("index", "apply").code == 0
    assert world.names() == {ours.filename}
    path.write_text(before)
    assert world.cli.run("index", "apply").code == 0
    assert world.names() == {ours.filename}  # it is the owner now


def test_an_index_may_let_any_base_take_names_over(world: World) -> None:
    theirs, ours = world.make("1.0", at=world.public), make_wheel(world.project, "9.0")
    assert world.names() == {theirs.filename}
    world.upload(ours)
    assert world.is_refused("root/pypi", "root/own")
    world.declare(BASES, changed="allow")
    try:
        assert world.names() == {ours.filename}
        world.delete()
        assert world.names() == {theirs.filename}
    finally:
        world.declare(BASES, changed="refuse")
    assert world.names() == {theirs.filename}


def test_a_name_that_nobody_had_is_whose_it_becomes(world: World) -> None:
    assert world.page().status == 404
    ours = make_wheel(world.project, "1.0")
    world.upload(ours)
    assert world.names() == {ours.filename}
    world.make("7.0", at=world.private)  # it comes after the index that has the name
    world.refresh()
    assert world.names() == {ours.filename}
    assert get(world.cli.port, f"/root/dev/+simple/{world.project}/", FILE).status == 200


def test_what_can_not_be_accepted(world: World) -> None:
    for words, code in (
        (("root/pypi",), 7),
        (("root/nothing",), 7),
        (("root/dev", "a b"), 2),
        (("root/dev", world.project), 0),
    ):
        done = world.cli.run("index", "accept", *words)
        assert done.code == code, (words, done.err)
    body = {"index": "root/dev", "projects": None, "proof": "00"}
    assert request(world.cli.port, "POST", "/+deployer/accept", body=body)[0] == 403
