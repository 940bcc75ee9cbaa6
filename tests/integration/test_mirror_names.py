"""The list of names of a mirror: it is complete without a commit for each name, also after a kill."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests.indexed_server import FILE, JSON, get, make_indexes
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(300)]

WHEELS = [make_wheel(f"demo{number}", "1.0") for number in range(12)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("names") / "server")
    with Upstream(WHEELS) as upstream:
        made.start("--front", "python")
        try:
            make_indexes(made.port, made.auth, upstream)
            for wheel in WHEELS:
                assert get(made.port, f"/root/pypi/+simple/{wheel.project}/", JSON).status == 200
                fetch(made, path_of(wheel), wheel.content)
            yield made
        finally:
            made.end()
            assert upstream.lists == 0, "the list of all names was asked for"


def path_of(wheel: object) -> str:
    return f"/root/pypi/+f/{wheel.sha256[:3]}/{wheel.sha256[3:16]}/{wheel.filename}"  # type: ignore[attr-defined]


def fetch(server: Server, path: str, content: bytes) -> None:
    """Get a file, which is stored a moment later."""
    assert get(server.port, path, FILE).body == content
    until((server.serverdir / "+files" / path[1:]).exists)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listed(server: Server) -> set[str]:
    return set(request(server.port, "GET", "/root/pypi")[1]["result"]["projects"])


def test_every_name_is_listed_also_after_a_kill(server: Server) -> None:
    """The kill comes before, or after, or while the names are stored."""
    server.send(signal.SIGKILL)
    server.start("--front", "python")
    until(lambda: listed(server) == {wheel.project for wheel in WHEELS})


def test_a_mirror_is_deleted_with_the_files_whose_names_are_not_stored_yet(server: Server) -> None:
    more = make_wheel("more", "1.0")
    with Upstream([more]) as upstream:
        body = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True, "volatile": True}
        assert request(server.port, "PUT", "/root/other", body=body, headers=server.auth)[0] == 200
        path = path_of(more).replace("pypi", "other")
        assert get(server.port, "/root/other/+simple/more/", JSON).status == 200
        fetch(server, path, more.content)
        assert request(server.port, "DELETE", "/root/other", headers=server.auth)[0] == 201
        until(lambda: not (server.serverdir / "+files" / path[1:]).exists())
