"""Files that went from the disk by another way than devpi's: fetched anew where an upstream has them, else told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.indexed_server import FILE, JSON, at_once, get, make_indexes, upload
from tests.server_process import PATIENCE, Server
from tests.upstream import Distribution, Upstream, make_wheel

MIRRORED, OWN = make_wheel("alpha", "1.0"), make_wheel("own", "1.0")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([MIRRORED]) as running:
        yield running


def path_of(server: Server, wheel: Distribution) -> str:
    page = f"/root/dev/+simple/{wheel.project}/"
    (file,) = json.loads(get(server.port, page, JSON).body)["files"]
    return urljoin(page, file["url"])


def kept(server: Server, path: str) -> Path:
    """The file on the disk, once it is there."""
    file = server.serverdir / "+files" / path[1:]
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return file


def test_a_mirrors_file_is_fetched_anew_and_an_uploaded_one_is_told_as_gone(
    anywhere: Server, upstream: Upstream
) -> None:
    server = anywhere.start()
    auth = server.auth
    make_indexes(server.port, auth, upstream)
    assert upload(server, auth, "root/dev", OWN) == 200
    paths = {wheel.filename: path_of(server, wheel).partition("#")[0] for wheel in (MIRRORED, OWN)}
    for wheel in (MIRRORED, OWN):
        assert get(server.port, paths[wheel.filename], FILE).body == wheel.content
        kept(server, paths[wheel.filename]).unlink()
    answers = at_once(server.port, [(paths[MIRRORED.filename], FILE)] * 8)
    assert {got.body for got in answers} == {MIRRORED.content}
    assert upstream.files() == 2
    assert kept(server, paths[MIRRORED.filename]).read_bytes() == MIRRORED.content
    assert get(server.port, paths[OWN.filename], FILE).status == 404
    assert "Traceback" not in server.output
    assert upload(server, auth, "root/dev", OWN) == 200
    assert get(server.port, paths[OWN.filename], FILE).body == OWN.content
