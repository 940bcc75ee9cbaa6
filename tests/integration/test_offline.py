"""Offline while it runs: no upstream is asked, pages list what is here, and only who may read the data can switch."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urljoin

import pytest

from tests.contained import BOTH
from tests.engines import need
from tests.indexed_server import FILE, JSON, get, make_indexes, upload
from tests.integration.cli import Cli
from tests.server_process import Server, request
from tests.upstream import Upstream, make_wheel

PAGE = "/root/dev/+simple/alpha/"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel("alpha", version) for version in ("1.0", "2.0")]) as running:
        yield running


def switch(server: Server, *, offline: bool, key: str | None = None) -> int:
    """As the command does it; the status."""
    known = request(server.port, "GET", "/+deployer")[1]
    text = f"{known['challenge']}:{known['uuid']}:offline {'on' if offline else 'off'}"
    secret = bytes.fromhex(key or (server.private / "proof-key").read_text().strip())
    proof = hmac.new(secret, text.encode(), hashlib.sha256).hexdigest()
    body = {"offline": offline, "proof": proof}
    status = request(server.port, "POST", "/+deployer/offline", body=body)[0]
    # The same words again are nobody's: each challenge serves once.
    assert request(server.port, "POST", "/+deployer/offline", body=body)[0] == 403
    return status


def links(server: Server) -> list[str]:
    return [file["filename"] for file in json.loads(get(server.port, PAGE, JSON).body)["files"]]


def test_pages_list_what_is_here_and_nothing_is_asked(anywhere: Server, upstream: Upstream) -> None:
    server = anywhere.start()
    try:
        auth = server.auth
        make_indexes(server.port, auth, upstream)
        told = json.loads(get(server.port, PAGE, JSON).body)["files"]
        (here,) = [file for file in told if "2.0" in file["filename"]]
        (missing,) = [file for file in told if "1.0" in file["filename"]]
        assert get(server.port, urljoin(PAGE, here["url"]), FILE).status == 200
        assert switch(server, offline=True, key="00" * 32) == 403
        assert len(links(server)) == 2
        assert switch(server, offline=True) == 200
        upstream.forget()
        for _ in range(2):
            assert links(server) == [here["filename"]]
            assert get(server.port, urljoin(PAGE, here["url"]), FILE).status == 200
            assert get(server.port, urljoin(PAGE, missing["url"]), FILE).status == 502
            assert get(server.port, "/root/dev/+simple/unknown/", JSON).status in (404, 502)
            assert upload(server, auth, "root/dev", make_wheel("own", "1.0")) == 200
            assert request(server.port, "DELETE", "/root/dev/own", headers=auth)[0] == 200
            server.send(signal.SIGKILL)
            server.start()
            assert request(server.port, "GET", "/+deployer")[1]["offline"] is True
        assert upstream.requests == ()
        assert switch(server, offline=False) == 200
        assert len(links(server)) == 2
        assert get(server.port, urljoin(PAGE, missing["url"]), FILE).status == 200
    finally:
        switch(server, offline=False)


@pytest.mark.parametrize("engine", BOTH)
def test_the_command_switches_and_tells(engine: str, tmp_path: Path, upstream: Upstream) -> None:
    need(engine)
    cli = Cli(home=tmp_path, engine=engine, network="host", upstream=upstream.simple_url)
    try:
        assert cli.run("offline", "on").code == 5
        assert cli.up("--no-pip").code == 0
        assert cli.run("offline", "status", "--json").data["offline"] is False
        switched = cli.run("offline", "on")
        assert (switched.code, switched.out) == (0, "offline: upstreams are not asked\n")
        assert cli.run("status", "--json").data["offline"] is True
        assert "offline" in cli.run("status").out
        assert cli.run("restart").code == 0
        assert cli.run("offline", "status", "--json").data["offline"] is True
        assert cli.run("offline", "off", "--json").data["offline"] is False
        assert cli.run("status", "--json").data["offline"] is False
    finally:
        cli.clean()
