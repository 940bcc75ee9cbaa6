"""The endpoints of bundles: who may list and send files of mirrors, and what is never taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployer.devpi.api import DevpiApi
from deployer.protocol import CACHED_ROUTE, KEEP_ROUTE, PROOF_HEADER
from deployer.secrets import Secret
from tests.indexed_server import FILE, JSON, get
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Distribution, Upstream, make_wheel

pytestmark = pytest.mark.server
ALPHA, BETA = make_wheel("alpha", "1.0"), make_wheel("beta", "1.0", files={"beta.py": "x = 1\n" * 5000})


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([ALPHA]) as running:
        yield running


@pytest.fixture(scope="module", params=["6", "7"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, upstream: Upstream
) -> Iterator[Server]:
    """One of each version, with a mirror and a stage."""
    python = {"python": request.getfixturevalue("python7")} if request.param == "7" else {}
    made = Server(tmp_path_factory.mktemp("server") / "data", **python)
    mirror = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True, "volatile": True}
    try:
        made.start()
        with DevpiApi(f"http://127.0.0.1:{made.port}") as api:
            api.identity()
            api.login("root", Secret(made.password))
            api.put_index("root/pypi", mirror)
            api.put_index("root/dev", {"type": "stage", "bases": ("root/pypi",), "volatile": True})
        yield made
    finally:
        made.end()


def proof(server: Server, order: str, *, key: str = "") -> str:
    known = request(server.port, "GET", "/+deployer")[1]
    secret = bytes.fromhex(key or (server.private / "proof-key").read_text().strip())
    return hmac.new(secret, f"{known['challenge']}:{known['uuid']}:{order}".encode(), hashlib.sha256).hexdigest()


def listed(server: Server, index: str = "root/pypi", **key: str) -> tuple[int, Any]:
    body = {"index": index, "proof": proof(server, f"cached {index}", **key)}
    return request(server.port, "POST", CACHED_ROUTE, body=body)


def line_of(wheel: Distribution, **changed: Any) -> bytes:
    file = {
        "filename": wheel.filename,
        "url": f"https://files.example.com/{wheel.filename}",
        "hashes": {"sha256": wheel.sha256},
        "upload-time": "2024-01-02T03:04:05.000000Z",
    } | changed.pop("file", {})
    told = {
        "index": "root/pypi",
        "project": wheel.project,
        "page": {"meta": {"api-version": "1.1"}, "name": wheel.project, "files": [file]},
        "sha256": wheel.sha256,
        "size": len(wheel.content),
        "companions": {".metadata": base64.b64encode(wheel.metadata).decode()},
    }
    return json.dumps(told | changed).encode() + b"\n"


def send(server: Server, line: bytes, content: bytes, *, auth: bool = True, key: str = "") -> int:
    order = f"keep {hashlib.sha256(line).hexdigest()}"
    headers = {**(server.auth if auth else {}), PROOF_HEADER: proof(server, order, key=key)}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("POST", KEEP_ROUTE, body=line + content, headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def tree(server: Server) -> set[str]:
    return {
        str(path.relative_to(server.serverdir)) for path in (server.serverdir / "+files").rglob("*") if path.is_file()
    }


def test_what_is_cached_is_listed_for_root_alone(server: Server, upstream: Upstream) -> None:
    (file,) = json.loads(get(server.port, "/root/dev/+simple/alpha/", JSON).body)["files"]
    assert listed(server)[1]["files"] == []
    assert get(server.port, "/" + file["url"].replace("../", ""), FILE).status == 200
    deadline = time.monotonic() + PATIENCE
    while not listed(server)[1]["files"]:  # it is stored when all of it has been sent
        assert time.monotonic() < deadline
    status, told = listed(server)
    assert (status, told["url"], list(told["pages"])) == (200, upstream.simple_url, ["alpha"])
    (one,) = told["files"]
    assert (one["project"], one["sha256"], one["size"]) == ("alpha", ALPHA.sha256, len(ALPHA.content))
    assert one["file"]["filename"] == ALPHA.filename and one["path"].startswith("+f/")
    assert listed(server, key="00" * 32)[0] == 403
    assert listed(server, "root/dev")[0] == listed(server, "root/none")[0] == 404
    for body in ([], {}, {"index": "../../x", "proof": ""}, {"index": "root/pypi"}, {"index": 1, "proof": "x"}):
        assert request(server.port, "POST", CACHED_ROUTE, body=body)[0] == 403


def test_a_file_is_taken_whole_or_not_at_all(server: Server, upstream: Upstream) -> None:
    before = tree(server)
    good, content = line_of(BETA), BETA.content
    refused = {
        "without a proof": (403, good, content, {"key": "00" * 32}),
        "without a user": (401, good, content, {"auth": False}),
        "cut": (400, good, content[:-1], {}),
        "longer": (400, good, content + b"x", {}),
        "other content": (400, good, content[:-1] + b"x", {}),
        "another hash on the page": (400, line_of(BETA, file={"hashes": {"sha256": "a" * 64}}), content, {}),
        "a name that leads up": (400, line_of(BETA, file={"filename": "../../x.whl"}), content, {}),
        "an address of another kind": (400, line_of(BETA, file={"url": "file:///etc/passwd"}), content, {}),
        "two files": (400, line_of(BETA, page={"files": [{}, {}]}), content, {}),
        "a page of another form": (400, line_of(BETA, page={"files": 1}), content, {}),
        "a project that leads up": (400, line_of(BETA, project="../beta"), content, {}),
        "an unknown companion": (400, line_of(BETA, companions={"/../x": ""}), content, {}),
        "a companion that is no Base64": (400, line_of(BETA, companions={".metadata": "%"}), content, {}),
        "a stage": (404, line_of(BETA, index="root/dev"), content, {}),
        "no JSON": (400, b"{\n", content, {}),
        "deep nesting": (400, b"[" * 50_000 + b"\n", content, {}),
    }
    for case, (status, line, body, options) in refused.items():
        assert send(server, line, body, **options) == status, case
        assert tree(server) == before, case
    upstream.forget()
    assert send(server, good, content) == 200
    assert len(tree(server) - before) == 1
    # Online, the upstream is asked at once, and has the last word: there is no such project.
    assert get(server.port, "/root/dev/+simple/beta/", JSON).status == 404
    assert upstream.pages("beta") == 1
    assert send(server, good, content) == 200  # once more, after a kill
    assert len(tree(server) - before) == 1


def test_another_file_of_that_name_is_a_conflict(server: Server) -> None:
    other = make_wheel("alpha", "1.0", files={"alpha.py": "x = 2\n" * 5000})
    before = tree(server)
    assert send(server, line_of(other), other.content) == 409
    assert tree(server) == before


def test_what_was_taken_is_served_offline_with_every_field(server: Server, upstream: Upstream) -> None:
    gamma = make_wheel("gamma", "1.0", files={"gamma.py": "x = 1\n" * 5000})
    order = proof(server, "offline on")
    assert request(server.port, "POST", "/+deployer/offline", body={"offline": True, "proof": order})[0] == 200
    assert get(server.port, "/root/dev/+simple/gamma/", JSON).status in (200, 404)
    upstream.forget()
    assert send(server, line_of(gamma), gamma.content) == 200
    (file,) = json.loads(get(server.port, "/root/dev/+simple/gamma/", JSON).body)["files"]
    assert (file["hashes"]["sha256"], file["upload-time"]) == (gamma.sha256, "2024-01-02T03:04:05.000000Z")
    path = "/" + file["url"].replace("../", "")
    assert get(server.port, path, FILE).body == gamma.content
    assert get(server.port, f"{path}.metadata", FILE).body == gamma.metadata
    assert upstream.requests == ()


def test_no_temporary_file_is_left(server: Server) -> None:
    assert list((Path(server.private) / "tmp").iterdir()) == []
