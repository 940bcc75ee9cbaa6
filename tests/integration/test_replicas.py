"""A primary and its replicas, as clients see them: all of them serve the same, also while the primary is down."""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from itertools import compress, cycle, product
from threading import Barrier

import pytest

from deployer.protocol import AcceptRequest, client_proof
from tests.indexed_server import FILE, get, make_indexes, upload
from tests.integration.test_offline import switch
from tests.members import Behind, Members, fetch, files, page
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, Server, login, request
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]

COLD = ("direct", "staged", "ordered")
INDEXES = {"direct": "root/pypi", "staged": "root/dev", "ordered": "root/ordered"}
OTHERS = ("seen", "apart", "held", "secret", "off", "warm", "named", "unknown", "late", "mixed")
CLIENTS = 60


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in (*COLD, *OTHERS)]) as running:
        yield running


@pytest.fixture(scope="module")
def hidden() -> Iterator[Upstream]:
    with Upstream([make_wheel("internal", "1.0")]) as running:
        running.faults.auth = ("deploy", "hidden-password")
        yield running


@pytest.fixture(scope="module")
def way() -> list[Behind]:
    """The way of the second replica to its primary."""
    return []


@pytest.fixture(scope="module")
def members(
    tmp_path_factory: pytest.TempPathFactory, upstream: Upstream, hidden: Upstream, way: list[Behind]
) -> Iterator[Members]:
    # A write waits longer than it takes on a slow machine: nothing here depends on the time.
    made = Members(tmp_path_factory.mktemp("members"), words=("--write-wait", "60"))
    try:
        port = made.start_primary().port
        make_indexes(port, made.primary.auth, upstream)
        private = {
            "type": "mirror",
            "mirror_url": hidden.simple_url,
            "mirror_no_project_list": True,
        }
        header = f"Basic {base64.b64encode(b'deploy:hidden-password').decode()}"
        (made.primary.private / "credentials").write_text(json.dumps({hidden.simple_url: header}))
        request(port, "GET", "/+deployer")  # reads them
        ordered = {"type": "ordered", "bases": ["root/pypi"]}
        for index, body in (("root/private", private), ("root/ordered", ordered)):
            status, answer = request(port, "PUT", f"/{index}", body=body, headers=made.primary.auth)
            assert status == 200, answer
        way.append(Behind(port))
        made.launch(made.others[0])
        made.launch(made.others[1], url=f"http://127.0.0.1:{way[0].port}")
        for replica in made.others:
            made.wait(replica)
        yield made
    finally:
        made.end()
        for one in way:
            one.close()


def test_strangers_are_told_nothing(members: Members) -> None:
    forged = {"X-Devpi-Replica-Uuid": "0" * 32, "X-Devpi-Expected-Primary-Id": "", "Authorization": "Bearer a.b.c"}
    paths = ("/+changelog/0", "/+changelog/0-", "/+deployer/page/root/pypi/direct", "/+deployer/member")
    for path, headers, member in product(paths, ({}, forged, members.primary.auth), members.all):
        got = get(member.port, path, {"Accept": "*/*", **headers})
        assert got.status in (400, 403, 404), (path, headers, got.status)
        assert members.secret.read_text().encode() not in got.body
    assert request(members.primary.port, "POST", "/+deployer/member", body={}, headers=forged)[0] == 403


@pytest.mark.parametrize("name", COLD)
def test_a_crowd_at_all_members_asks_the_upstream_once(members: Members, upstream: Upstream, name: str) -> None:
    index, wheel = INDEXES[name], make_wheel(name, "1.0")
    barrier = Barrier(CLIENTS)
    upstream.faults.latency = 0.1
    try:

        def install(member: Server) -> bytes:
            barrier.wait()
            return fetch(member, index, wheel).body

        with ThreadPoolExecutor(CLIENTS) as pool:
            got = list(pool.map(install, members.all * (CLIENTS // len(members.all))))
    finally:
        upstream.faults.latency = 0.0
    assert set(got) == {wheel.content}
    assert (upstream.pages(name), upstream.files(wheel.filename)) == (1, 1)


def test_a_page_of_uploads_and_a_mirror_is_the_same_everywhere(members: Members, upstream: Upstream) -> None:
    assert upload(members.primary, members.primary.auth, "root/staging", make_wheel("mixed", "2.0")) == 404
    body = {"type": "stage", "bases": ["root/pypi"], "mirror_whitelist": ["*"]}
    request(members.others[0].port, "PUT", "/root/staging", body=body, headers=members.primary.auth)
    assert upload(members.others[1], members.primary.auth, "root/staging", make_wheel("mixed", "2.0")) == 200
    for member in [*members.others, members.primary]:
        found = files(member, "root/staging", "mixed")
        assert sorted(found) == ["mixed-1.0-py3-none-any.whl", "mixed-2.0-py3-none-any.whl"]
        for version in ("1.0", "2.0"):
            assert fetch(member, "root/staging", make_wheel("mixed", version)).body
    assert upstream.pages("mixed") == 1


@pytest.mark.parametrize("rounds", [20, pytest.param(200, marks=pytest.mark.endurance)])
def test_an_upload_is_at_all_members_when_it_is_acknowledged(members: Members, way: list[Behind], rounds: int) -> None:
    """One replica hears of commits half a second late; each client asks the next member."""
    auth = members.primary.auth
    names = [f"read-{rounds}-{number}" for number in range(5)]

    def read(name: str) -> None:
        turns = cycle(members.all)
        for number in range(rounds // len(names)):
            wheel = make_wheel(name, f"1.{number}")
            assert upload(next(turns), auth, "root/dev", wheel) == 200
            assert wheel.filename in files(next(turns), "root/dev", name)
            assert fetch(next(turns), "root/dev", wheel).body == wheel.content
            next(turns)

    way[0].seconds = 0.5
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(read, names))
    finally:
        way[0].seconds = 0.0


def test_a_file_that_is_being_replicated_is_served(members: Members, way: list[Behind]) -> None:
    """The page of a replica lists an upload before the replica has the file."""
    late, wheel = members.others[1], make_wheel("moving", "1.0", files={"data.bin": bytes(300_000)})
    assert "direct-1.0-py3-none-any.whl" in files(late, "root/pypi", "direct")
    way[0].late, way[0].seconds = b"/+f/", 0.5
    try:
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(upload, members.primary, members.primary.auth, "root/dev", wheel)
            deadline = time.monotonic() + PATIENCE
            while page(late, "root/dev", "moving").status != 200:
                assert time.monotonic() < deadline
            got = fetch(late, "root/dev", wheel)
            assert sent.result() == 200
    finally:
        way[0].late, way[0].seconds = b"/+changelog/", 0.0
    assert (got.status, got.whole, got.body == wheel.content) == (200, True, True)


@pytest.mark.endurance
def test_an_acknowledged_upload_outlives_the_primary(members: Members) -> None:
    auth = members.primary.auth
    for number in range(50):
        wheel = make_wheel("precious", f"1.{number}", files={"data.bin": os.urandom(20 << 20)})
        status = upload(members.all[number % 3], auth, "root/dev", wheel)
        members.primary.end()
        try:
            assert status == 200
            held = [wheel.filename in files(one, "root/dev", "precious") for one in members.others]
            assert any(fetch(one, "root/dev", wheel).body == wheel.content for one in compress(members.others, held))
        finally:
            members.start_primary()


def test_a_rule_and_a_hidden_password_hold_at_a_replica(members: Members, hidden: Upstream) -> None:
    replica = members.others[0]
    assert fetch(replica, "root/private", make_wheel("internal", "1.0")).status == 200
    assert not (replica.private / "credentials").exists()
    address = files(replica, "root/pypi", "held")["held-1.0-py3-none-any.whl"]
    assert get(replica.port, address, FILE).status == 200
    listed = json.dumps({"advisories": 1, "names": {"held": {"1.0": "MAL-1"}}})
    target = members.primary.private / "malicious.json"
    target.write_text(listed)
    deadline = time.monotonic() + PATIENCE
    while any(get(member.port, address, FILE).status != 403 for member in members.all):
        assert time.monotonic() < deadline, [get(member.port, address, FILE).status for member in members.all]
        time.sleep(0.1)
    assert "held-1.0-py3-none-any.whl" not in files(replica, "root/pypi", "held")


def owner(member: Server, project: str) -> str:
    path = member.private / "owners/root/ordered" / project
    return path.read_text().strip() if path.exists() else ""


def test_who_served_a_project_first_is_the_same_everywhere(members: Members) -> None:
    """And what is accepted at the primary is accepted everywhere."""

    def all_have(expected: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while (found := [owner(member, "seen") for member in members.all]) != [expected] * len(members.all):
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    assert page(members.others[0], "root/ordered", "seen").status == HTTPStatus.OK
    all_have("root/pypi")
    wanted = AcceptRequest(index="root/ordered", projects=("seen",))
    about = request(members.primary.port, "GET", "/+deployer")[1]
    key = (members.primary.private / "proof-key").read_text().strip()
    proof = client_proof(key, challenge=about["challenge"], uuid=about["uuid"], order=wanted.order)
    body = replace(wanted, proof=proof).json
    assert request(members.primary.port, "POST", "/+deployer/accept", body=body)[0] == HTTPStatus.OK
    all_have("")


def test_offline_holds_at_all_members(members: Members, upstream: Upstream) -> None:
    assert switch(members.primary, offline=True) == 200
    try:
        before = len(upstream.requests)
        for member in members.all:
            assert page(member, "root/pypi", "off").status in (404, 502)
            assert fetch(member, "root/pypi", make_wheel("direct", "1.0")).status == 200
        members.primary.end()
        for member in members.others:
            assert page(member, "root/pypi", "off").status in (404, 502)
        assert len(upstream.requests) == before
    finally:
        members.primary.end()
        members.start_primary()
        assert switch(members.primary, offline=False) == 200
    deadline = time.monotonic() + PATIENCE
    while any(page(member, "root/pypi", "off").status != 200 for member in members.all):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def load(member: Server, wheel: Distribution) -> None:
    """Ask for a page and its file, a hundred times."""
    for _ in range(100):
        assert fetch(member, "root/dev", wheel).body == wheel.content


def test_without_a_primary_replicas_serve_what_they_have(
    members: Members, upstream: Upstream, way: list[Behind]
) -> None:
    one, two = members.others
    auth = members.primary.auth
    warm, named, apart = (make_wheel(name, "1.0") for name in ("warm", "named", "apart"))
    assert fetch(members.primary, "root/dev", apart).body == apart.content
    for member in members.others:
        deadline = time.monotonic() + PATIENCE
        while not (member.private / "upstream/root/pypi/apart").exists():  # nobody asks this member for it
            assert time.monotonic() < deadline, member.output[-4000:]
            time.sleep(0.1)
    for member in members.others:
        assert fetch(member, "root/dev", warm).body == warm.content
        assert "named-1.0-py3-none-any.whl" in files(member, "root/dev", "named")
    assert upload(members.primary, auth, "root/dev", make_wheel("lasting", "1.0")) == 200
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, member, warm) for member in members.others * 2]
        members.primary.end()
        for one_load in loads:
            one_load.result()
    try:
        two.end()
        members.launch(two, url=f"http://127.0.0.1:{way[0].port}")
        members.wait(two)  # it had everything once
        for member in members.others:
            for wheel in (warm, named, apart, make_wheel("lasting", "1.0")):
                assert fetch(member, "root/dev", wheel).body == wheel.content, wheel.filename
            assert upstream.pages("apart") == 1
            before = len(upstream.requests)
            for index in INDEXES.values():
                assert page(member, index, "unknown").status == HTTPStatus.BAD_GATEWAY
            assert len(upstream.requests) == before
            assert upload(member, auth, "root/dev", make_wheel("lost", "1.0")) == HTTPStatus.SERVICE_UNAVAILABLE
            assert login(member.port, members.primary.password)[0] == HTTPStatus.SERVICE_UNAVAILABLE
    finally:
        members.start_primary()
    deadline = time.monotonic() + PATIENCE
    while page(one, "root/dev", "unknown").status != 200:  # the first report to the primary opens the way to it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert upload(one, auth, "root/dev", make_wheel("later", "1.0")) == 200


def test_a_new_replica_answers_503_until_it_has_everything(members: Members) -> None:
    wheel = make_wheel("whole", "1.0")
    assert upload(members.primary, members.primary.auth, "root/dev", wheel) == 200
    new, metrics = Server(members.root / "new"), free_port()
    members.launch(new, "--metrics", f"127.0.0.1:{metrics}")
    try:
        new.wait()
        seen = set()
        deadline = time.monotonic() + PATIENCE
        while (got := page(new, "root/dev", "whole")).status != 200:
            seen.add((got.status, "retry-after" in got.headers))
            assert time.monotonic() < deadline, new.output[-4000:]
        assert seen <= {(503, True)}
        assert fetch(new, "root/dev", wheel).body == wheel.content
        members.wait_until(new, lambda status: status.synced and status.files_in_sync)
        told = get(metrics, "/metrics", {}).body.decode().splitlines()
        assert {"deployer_member_synced 1", "deployer_replica_missing_files 0"} <= set(told)
    finally:
        new.end()
        shutil.rmtree(new.serverdir, ignore_errors=True)  # its nginx may still be ending
