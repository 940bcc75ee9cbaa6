"""Quotas of uploads: what an index may have, after uploads, deletions and pushes, with devpi-server 6 and 7."""

from __future__ import annotations

import base64
import http.client
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.front import form, need_nginx
from tests.server_process import Server, request
from tests.upstream import Distribution, make_wheel

pytestmark = pytest.mark.server
LIMIT = 100_000
OTHER = 50_000


def wheel(version: str, size: int = 30_000) -> Distribution:
    return make_wheel("demo", version, files={"data.bin": "x" * size})


@pytest.fixture(scope="module", params=["6", "7"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    python = sys.executable if request.param == "6" else str(request.getfixturevalue("python7"))
    made = Server(tmp_path_factory.mktemp("quota") / "server", python=python)
    try:
        made.start(
            "--quota", f"root/small={LIMIT}b", "--quota", f"root/smaller={OTHER}b", "--quota", f"root/firm={LIMIT}b"
        )
        yield made
    finally:
        made.end()


def bytes_of(server: Server, name: str) -> int:
    return sum(path.stat().st_size for path in (server.serverdir / "+files/root" / name).rglob("*") if path.is_file())


def create(server: Server, auth: dict[str, str], name: str, **fields: Any) -> dict[str, Any]:
    """An index that can be emptied; what the server has of it."""
    assert request(server.port, "PUT", f"/root/{name}", body={"volatile": True, **fields}, headers=auth)[0] == 200
    return dict(request(server.port, "GET", f"/root/{name}?no_projects=")[1]["result"])


def send(server: Server, auth: dict[str, str], index: str, sent: Distribution) -> tuple[int, str]:
    """Status and message of an upload."""
    fields = {":action": "file_upload", "name": sent.project, "version": sent.version}
    headers, body = form(fields, sent.filename, sent.content)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=180)
    try:
        connection.request("POST", f"/root/{index}/", body=body, headers={**headers, **auth})
        answer = connection.getresponse()
        return answer.status, f"{answer.reason} {answer.read().decode(errors='replace')}"
    finally:
        connection.close()


def test_uploads_beyond_the_quota_are_refused_until_something_is_deleted(server: Server) -> None:
    auth = server.auth
    create(server, auth, "small")
    for version in ("1.0", "2.0", "3.0"):
        assert send(server, auth, "small", wheel(version))[0] == 200
    for _ in range(2):
        status, told = send(server, auth, "small", wheel("4.0"))
        assert status == 413
        assert "left of its quota of 100 kB" in told
    assert request(server.port, "GET", "/root/small/demo/4.0")[0] == 404  # nothing of it is kept
    assert bytes_of(server, "small") <= LIMIT
    assert send(server, auth, "small", wheel("5.0", 2000))[0] == 200
    assert request(server.port, "DELETE", "/root/small/demo/1.0", headers=auth)[0] == 200
    assert send(server, auth, "small", wheel("4.0"))[0] == 200
    assert request(server.port, "DELETE", "/root/small/demo", headers=auth)[0] == 200
    for version in ("1.0", "2.0", "3.0"):
        assert send(server, auth, "small", wheel(version))[0] == 200


def test_an_upload_that_devpi_refuses_does_not_count(server: Server) -> None:
    auth = server.auth
    create(server, auth, "firm", volatile=False)
    assert send(server, auth, "firm", wheel("1.0"))[0] == 200
    for _ in range(3):
        assert send(server, auth, "firm", wheel("1.0", 31_000))[0] == 409
    for version in ("2.0", "3.0"):
        assert send(server, auth, "firm", wheel(version))[0] == 200
    assert send(server, auth, "firm", wheel("4.0"))[0] == 413


@pytest.mark.parametrize("front", ["nginx", "python"])
def test_a_body_that_can_t_fit_is_refused_before_it_is_read(tmp_path: Path, front: str) -> None:
    if front == "nginx":
        need_nginx()
    server = Server(tmp_path / "server")
    try:
        server.start("--quota", f"root/small={LIMIT}b", "--front", front)
        auth = server.auth
        create(server, auth, "small")
        assert send(server, auth, "small", wheel("1.0"))[0] == 200
        status, told = send(server, auth, "small", wheel("2.0", 3 << 20))
        assert (status, "left of its quota of 100 kB" in told) == (413, True), told
        assert send(server, auth, "small", wheel("3.0"))[0] == 200
        assert server.output.count("POST /root/small/") == 2, "devpi got the body"
        # Nobody else learns what an index has.
        assert request(server.port, "PUT", "/other", body={"password": "x" * 12}, headers=auth)[0] == 201
        token = request(server.port, "POST", "/+login", body={"user": "other", "password": "x" * 12})[1]
        login = base64.b64encode(f"other:{token['result']['password']}".encode()).decode()
        status, told = send(server, {"X-Devpi-Auth": login}, "small", wheel("4.0", 3 << 20))
        assert (status, "quota" in told) == (403, False)
    finally:
        server.end()


def test_a_push_counts_and_is_refused_as_a_whole(server: Server) -> None:
    auth = server.auth
    create(server, auth, "source")
    create(server, auth, "smaller")
    for version in ("1.0", "2.0"):
        assert send(server, auth, "source", wheel(version))[0] == 200

    def push(version: str) -> int:
        body = {"targetindex": "root/smaller", "name": "demo", "version": version}
        return request(server.port, "PUSH", "/root/source", body=body, headers=auth)[0]

    assert push("1.0") == 200
    assert push("2.0") == 413
    assert bytes_of(server, "smaller") <= OTHER
    assert request(server.port, "GET", "/root/smaller/demo/2.0")[0] == 404
    assert request(server.port, "GET", "/root/smaller/demo/1.0")[0] == 200
    assert send(server, auth, "smaller", wheel("3.0"))[0] == 413


def test_an_index_without_a_quota_takes_everything(server: Server) -> None:
    auth = server.auth
    create(server, auth, "free")
    for version in ("1.0", "2.0"):
        assert send(server, auth, "free", wheel(version, LIMIT))[0] == 200


def test_new_indexes_let_nobody_add_test_results_unless_told_so(server: Server) -> None:
    auth = server.auth
    assert create(server, auth, "plain")["acl_toxresult_upload"] == []
    assert create(server, auth, "first", type="ordered", bases=["root/plain"])["acl_toxresult_upload"] == []
    assert create(server, auth, "open", acl_toxresult_upload=[":ANONYMOUS:"])["acl_toxresult_upload"] == [":ANONYMOUS:"]
    assert "acl_toxresult_upload" not in create(server, auth, "mirrored", type=mirror_type(server))


def mirror_type(server: Server) -> str:
    return "mirror" if server.python == sys.executable else "remote"
