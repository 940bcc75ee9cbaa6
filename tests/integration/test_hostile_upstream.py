"""An upstream that means harm: the names of its files lead nowhere but into the server's own folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.hostile import HostileServer, reply
from tests.indexed_server import FILE, JSON, get, make_indexes
from tests.server_process import Server
from tests.upstream import Upstream

pytestmark = pytest.mark.server

LINKS = (
    "/files/..%2f..%2f..%2f..%2fevil-1.0-py3-none-any.whl",
    "/files/../../../../evil-1.1-py3-none-any.whl",
    "/files/%2e%2e/%2e%2e/evil-1.2-py3-none-any.whl",
    "/files//etc/evil-1.3-py3-none-any.whl",
    "file:///etc/evil-1.4-py3-none-any.whl",
    "/files/evil-1.5-py3-none-any.whl%00.txt",
    "/files/..%5c..%5cevil-1.6-py3-none-any.whl",
    "/files/evil-1.7-py3-none-any.whl",  # the one that means no harm
)
PAGE = "<!DOCTYPE html><html><body>" + "".join(f'<a href="{link}">{link}</a>' for link in LINKS) + "</body></html>"

EVIL = b"PK\x03\x04evil"
"""It begins as a wheel does: without a hash, nothing else is taken for one."""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    def answer(request: bytes) -> Iterator[bytes]:
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/simple/evil"):
            yield reply(PAGE.encode(), kind="text/html")
        else:
            yield reply(EVIL, kind="application/octet-stream")

    # The faults are in the names, so the upstream that other tests use is only an address here.
    with HostileServer(answer) as running:
        yield Upstream(port=running.port)


def test_no_file_name_leads_outside(upstream: Upstream, tmp_path: Path) -> None:
    server = Server(tmp_path / "deep" / "er" / "data")
    server.serverdir.parent.mkdir(parents=True)
    try:
        server.start("--request-timeout", "10")
        make_indexes(server.port, server.auth, upstream)
        page = "/root/dev/+simple/evil/"
        told = json.loads(get(server.port, page, JSON).body)
        answers = {file["filename"]: get(server.port, urljoin(page, file["url"]), FILE) for file in told["files"]}
        assert answers["evil-1.7-py3-none-any.whl"].body == EVIL
        assert not any("/" in name or "\\" in name or "\0" in name for name in answers)
        # Nor does a client get further by asking for it.
        for link in LINKS:
            get(server.port, f"/root/pypi/+f/abc/{link}", FILE)
            get(server.port, f"/root/pypi/+e/{link}", FILE)
    finally:
        server.end()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    holding = [path for path in files if path.read_bytes() == EVIL]
    assert holding
    assert [path for path in holding if not path.is_relative_to(server.serverdir / "+files")] == []
    outside = [path for path in files if not path.is_relative_to(server.serverdir)]
    assert outside == [server.log_file]
    assert not list(Path("/etc").glob("evil*"))
