"""Numbered members: what each reports, which data it refuses, and how a replica becomes the primary."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import pytest

from deployer.protocol import ExitCode
from tests.indexed_server import get, make_indexes, upload
from tests.members import Members, fetch
from tests.plain_devpi import free_port
from tests.server_process import COMMAND, PATIENCE, Server, login, request
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

PASSWORD = "the-password-of-the-cluster"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in ("cold", "warm", "apart")]) as running:
        yield running


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Members]:
    root = tmp_path_factory.mktemp("members")
    password = root / "password"
    password.write_text(f"{PASSWORD}\n")
    words = ("--write-wait", "60", "--root-password-file", str(password), "--files-on-demand", "root/pypi")
    made = Members(root, words=words)
    try:
        made.start_primary()
        make_indexes(made.primary.port, made.primary.auth, upstream)
        for replica in made.others:
            made.launch(replica)
        for replica in made.others:
            made.wait(replica)
        yield made
    finally:
        made.end()


def test_members_report_what_they_have(members: Members) -> None:
    primary = members.told(members.primary)
    assert (primary.number, primary.role, primary.synced, primary.errors) == (0, "primary", True, ())
    assert login(members.primary.port, PASSWORD)[0] == HTTPStatus.OK
    for number, replica in enumerate(members.others, 1):
        found = members.wait_until(replica, lambda one: one.synced and one.files_in_sync and one.lag_seconds == 0)
        assert (found.number, found.role, found.uuid) == (number, "replica", primary.uuid)
        assert (found.serial, found.primary_serial) == (primary.serial, primary.serial)
        assert (found.files_missing, found.errors, found.version) == (0, (), primary.version)
        assert found.last_contact_seconds is not None
        for path in ("/+ready", "/+live"):
            assert get(replica.port, path, {}).status == HTTPStatus.OK


def copied(member: Server) -> int:
    """How many files of this member were read, by its own log of requests."""
    lines = (member.private / "log/access.log").read_text().splitlines()
    return sum("/+f/" in line or "/+e/" in line for line in lines)


def known(member: Server) -> set[tuple[str, str]]:
    """The kinds and projects in the inventory of a member."""
    with contextlib.closing(sqlite3.connect(member.private / "inventory.sqlite")) as database:
        return set(database.execute("select kind, project from items"))


def test_a_replica_becomes_the_primary(members: Members) -> None:
    former, (one, two) = members.primary, members.others
    uuid, auth = members.told(former).uuid, former.auth
    wheels = [make_wheel("lasting", f"1.{number}", files={"data.bin": os.urandom(200_000)}) for number in range(8)]
    for wheel in wheels:
        assert upload(former, auth, "root/dev", wheel) == HTTPStatus.OK
    for member in members.all:
        assert fetch(member, "root/dev", make_wheel("warm", "1.0")).status == HTTPStatus.OK
    assert fetch(former, "root/dev", make_wheel("apart", "1.0")).status == HTTPStatus.OK
    serial = members.told(former).serial
    for member in members.others:
        members.wait_until(member, lambda found: found.synced and found.files_in_sync and found.serial >= serial)

    former.end()
    code, told = promote(one)
    assert (code, told["number"], told["uuid"], told["commits_lost"], told["missing"]) == (0, 1, uuid, 0, [])
    assert one.send(signal.SIGTERM) == 0
    assert two.send(signal.SIGTERM) == 0
    before = copied(one)
    members.primary, members.others = one, [two]
    members.start_primary("--cluster-uuid", uuid)
    began = time.monotonic()
    members.launch(two, "--cluster-uuid", uuid)
    members.wait(two)
    members.wait_until(two, lambda found: found.synced and found.files_in_sync and found.lag_seconds == 0)
    print(f"the other member is in sync after {time.monotonic() - began:.1f} s")
    assert copied(one) == before
    found = members.told(one)
    assert (found.number, found.role, found.uuid, found.synced) == (1, "primary", uuid, True)

    assert one.password == PASSWORD
    deadline = time.monotonic() + PATIENCE
    while not known(one) >= {("upload", "lasting"), ("page", "warm"), ("file", "warm")}:
        assert time.monotonic() < deadline, known(one)
        time.sleep(0.1)
    later = make_wheel("later", "1.0")
    for number, member in enumerate(members.all):
        assert request(member.port, "GET", "/root", headers=auth)[0] == HTTPStatus.OK
        wheel = make_wheel("written", f"1.{number}")
        assert upload(member, auth, "root/dev", wheel) == HTTPStatus.OK  # by a login that the former primary gave
    assert upload(two, one.auth, "root/dev", later) == HTTPStatus.OK
    for member in members.all:
        # The file of apart was at the former primary alone.
        for wheel in (*wheels, *(make_wheel(name, "1.0") for name in ("warm", "apart", "cold")), later):
            assert fetch(member, "root/dev", wheel).body == wheel.content, wheel.filename

    code, said = former.refuses(*members.role(former), "--cluster-uuid", uuid)
    assert (code, "deployer cluster renew 0" in said) == (ExitCode.REFUSED, True), said
    while former.serverdir.exists():  # its nginx may still be ending
        shutil.rmtree(former.serverdir, ignore_errors=True)
    members.others.append(former)
    with balancer(members) as url:  # a member at another site follows whoever is the primary
        members.launch(former, "--cluster-uuid", uuid, url=url)
        members.wait(former)
        members.wait_until(former, lambda found: found.synced and found.files_in_sync)
        assert fetch(former, "root/dev", later).body == later.content
        assert upload(former, auth, "root/dev", make_wheel("written", "2.0")) == HTTPStatus.OK


@contextlib.contextmanager
def balancer(members: Members) -> Iterator[str]:
    """The address of a balancer before all members but the last one."""
    port, before = free_port(), members.all[:-1]
    words = [*COMMAND, "balance", "--serverdir", str(members.root / "balancer"), "--listen", f"127.0.0.1:{port}"]
    words += [word for member in before for word in ("--member", f"127.0.0.1:{member.port}")]
    with subprocess.Popen([*words, "--primary", str(before.index(members.primary))]) as running:
        try:
            deadline = time.monotonic() + PATIENCE
            while not listens(port):
                assert running.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()


def listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        return request(port, "GET", "/+live")[0] == HTTPStatus.OK
    return False


def promote(member: Server, *more: str) -> tuple[int, dict[str, Any]]:
    words = (*COMMAND, "member", "promote", "--serverdir", str(member.serverdir), *more)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}
