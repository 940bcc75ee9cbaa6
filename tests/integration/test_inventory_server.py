"""The inventory of a real server: what was fetched, uploaded and removed, who may ask, and what a kill leaves."""

from __future__ import annotations

import hashlib
import hmac
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deployer.devpi.api import DevpiApi
from deployer.protocol import INVENTORY_ROUTE, PRUNE_ROUTE, InventoryRequest, PruneRequest
from deployer.secrets import Secret
from tests.indexed_server import FILE, JSON, get, upload
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server
ALPHA, BETA, OWN = make_wheel("alpha", "1.0"), make_wheel("beta", "2.0"), make_wheel("own", "3.0")


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([ALPHA, BETA]) as running:
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


def asked(server: Server, wanted: InventoryRequest, *, key: str = "") -> tuple[int, Any]:
    known = request(server.port, "GET", "/+deployer")[1]
    secret = bytes.fromhex(key or (server.private / "proof-key").read_text().strip())
    words = f"{known['challenge']}:{known['uuid']}:{wanted.order}".encode()
    proof = hmac.new(secret, words, hashlib.sha256).hexdigest()
    return request(server.port, "POST", INVENTORY_ROUTE, body=wanted.json | {"proof": proof})


def projects(server: Server) -> dict[str, Any]:
    status, answer = asked(server, InventoryRequest())
    assert status == 200, answer
    return {f"{one['index']} {one['project']}": one for one in answer["projects"]}


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def path_of(project: str, wheel: Any) -> str:
    return f"/root/pypi/+f/{wheel.sha256[:3]}/{wheel.sha256[3:16]}/{wheel.filename}"


def test_what_was_fetched_and_uploaded_is_listed(server: Server, upstream: Upstream) -> None:
    assert get(server.port, "/root/dev/+simple/alpha/", JSON).status == 200
    assert get(server.port, f"{path_of('alpha', ALPHA)}.metadata", FILE).status == 200
    for _ in range(2):
        assert get(server.port, path_of("alpha", ALPHA), FILE).body == ALPHA.content
    assert upload(server, server.auth, "root/dev", OWN) == 200
    found = until(lambda: of if "root/dev own" in (of := projects(server)) else None)
    assert sorted(found) == ["root/dev own", "root/pypi alpha"]
    assert (found["root/dev own"]["uploads"], found["root/dev own"]["origin"]) == (1, "")
    alpha = until(lambda: one if (one := projects(server)["root/pypi alpha"])["uses"] == 2 else None)
    assert (alpha["versions"], alpha["files"], alpha["uploads"], alpha["origin"]) == (1, 1, 0, upstream.simple_url)
    status, answer = asked(server, InventoryRequest(project="alpha"))
    assert status == 200
    assert [(file["kind"], file["version"]) for file in answer["files"]] == [
        ("companion", "1.0"),
        ("file", "1.0"),
        ("page", ""),
    ]
    assert answer["files"][1]["size"] == len(ALPHA.content)


def test_what_is_removed_is_listed_no_more(server: Server) -> None:
    second = make_wheel("own", "4.0")
    assert upload(server, server.auth, "root/dev", second) == 200
    until(lambda: projects(server)["root/dev own"]["files"] == 2)
    assert request(server.port, "DELETE", "/root/dev/own/4.0", headers=server.auth)[0] == 200
    until(lambda: projects(server)["root/dev own"]["files"] == 1)


def test_only_who_can_read_the_server_directory_is_answered(server: Server) -> None:
    assert asked(server, InventoryRequest(), key="00" * 32)[0] == 403
    assert request(server.port, "POST", INVENTORY_ROUTE, body=InventoryRequest().json)[0] == 403
    assert request(server.port, "POST", INVENTORY_ROUTE, body=[])[0] == 403


def test_a_kill_and_a_lost_inventory_lose_nothing(server: Server) -> None:
    assert get(server.port, "/root/pypi/+simple/beta/", JSON).status == 200
    assert get(server.port, path_of("beta", BETA), FILE).body == BETA.content
    until((server.serverdir / "+files" / path_of("beta", BETA)[1:]).exists)
    server.send(signal.SIGKILL)  # before the inventory is written
    server.start()
    assert until(lambda: projects(server).get("root/pypi beta", {}).get("files"))
    server.end()
    for path in server.private.glob("inventory.sqlite*"):
        path.unlink()
    server.start()
    until(lambda: projects(server).keys() >= {"root/dev own", "root/pypi alpha", "root/pypi beta"})


def prune(server: Server, **wanted: Any) -> tuple[int, Any]:
    asked = PruneRequest(**wanted)
    known = request(server.port, "GET", "/+deployer")[1]
    secret = bytes.fromhex((server.private / "proof-key").read_text().strip())
    words = f"{known['challenge']}:{known['uuid']}:{asked.order}".encode()
    proof = hmac.new(secret, words, hashlib.sha256).hexdigest()
    return request(server.port, "POST", PRUNE_ROUTE, body=asked.json | {"proof": proof})


def test_what_is_pruned_leaves_the_disk_and_is_fetched_anew(server: Server, upstream: Upstream) -> None:
    for project, wheel in (("alpha", ALPHA), ("beta", BETA)):
        assert get(server.port, f"/root/dev/+simple/{project}/", JSON).status == 200
        assert get(server.port, path_of(project, wheel), FILE).status == 200
    until(lambda: projects(server).keys() >= {"root/dev own", "root/pypi alpha", "root/pypi beta"})
    stored = server.serverdir / "+files" / path_of("alpha", ALPHA)[1:]
    fetched = upstream.files()
    status, dry = prune(server, project="alpha", dry=True)
    assert status == 200
    assert stored.exists()
    status, done = prune(server, project="alpha")
    assert (status, done["removed"]) == (200, dry["removed"])
    assert {kind: of["number"] for kind, of in done["removed"].items()} == {"companion": 1, "file": 1, "page": 1}
    assert not stored.parent.exists()
    assert not (server.private / "upstream/root/pypi/alpha").exists()
    assert not list((server.private / "pages").glob("*/*/alpha"))
    assert "root/pypi alpha" not in projects(server)
    answer = get(server.port, "/root/dev/+simple/alpha/", JSON)
    assert ALPHA.filename.encode() in answer.body
    assert get(server.port, path_of("alpha", ALPHA), FILE).body == ALPHA.content
    assert upstream.files() == fetched + 1
    until(lambda: projects(server).get("root/pypi alpha", {}).get("files"))
    assert not request(server.port, "GET", "/+deployer")[1]["deleted"]["count"]


def test_uploads_pinned_and_unlisted_files_are_never_pruned(server: Server, upstream: Upstream) -> None:
    before = projects(server)
    assert before.keys() >= {"root/dev own", "root/pypi alpha", "root/pypi beta"}
    (server.private / "pinned.json").write_text(f'{{"files": ["{path_of("alpha", ALPHA)[1:]}"]}}')
    upstream.distributions = [known for known in upstream.distributions if known.project != "beta"]
    again = JSON | {"Cache-Control": "no-cache"}  # the upstream is asked every five seconds at most
    until(lambda: get(server.port, "/root/dev/+simple/beta/", again).status == 404)
    status, done = prune(server, to_bytes=0)
    assert (status, done["spared"]["warm"], done["spared"]["unlisted"]) == (200, 1, 1)
    for index, project, wheel in (("root/dev", "own", OWN), ("root/pypi", "alpha", ALPHA), ("root/pypi", "beta", BETA)):
        path = path_of(project, wheel).replace("root/pypi", index)
        assert get(server.port, path, FILE).body == wheel.content
    upstream.add(BETA)
    (server.private / "pinned.json").unlink()
