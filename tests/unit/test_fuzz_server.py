"""Whatever an upstream, nginx or a file of another version says, the server reads it or goes on without it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.protocol import Refusal
from tests.fuzzed import DEEP, changed, written

pytest.importorskip("devpi_server")


from deployer.server.boot import prepare
from deployer.server.boot.supervisor import Policy
from deployer.server.nginx.statistics import Statistics
from deployer.server.secret_files import Private
from deployer.server.upstream import credentials
from deployer.server.upstream.client import _retry_after

in_one_directory = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
LINE = {
    "index": "root/dev",
    "method": "GET",
    "path": "/root/dev/+simple/demo/",
    "status": "200",
    "bytes": "5",
    "from": "page",
    "fetched": "",
    "kept": "",
}


@given(content=written({"http://a/": "Basic abc"}))
def test_credentials(content: bytes) -> None:
    try:
        found = credentials.parse(content.decode("utf-8", "replace"))
    except ValueError as error:
        assert "abc" not in str(error)
    else:
        assert all(isinstance(text, str) for pair in found.items() for text in pair)


@given(content=written({"uuid": "a" * 32}))
@in_one_directory
def test_the_identity_of_the_data(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".nodeinfo").write_bytes(content)
    assert prepare.uuid_of(tmp_path) is None or isinstance(prepare.uuid_of(tmp_path), str)


@given(lines=st.lists(changed(LINE).map(json.dumps).map(str.encode) | DEEP, max_size=3))
@in_one_directory
def test_the_access_log(tmp_path: Path, lines: list[bytes]) -> None:
    private = Private(tmp_path)
    private.directory.mkdir(exist_ok=True)
    (log := private.access_log).parent.mkdir(exist_ok=True)
    log.write_bytes(b"".join(line.replace(b"\n", b"") + b"\n" for line in [*lines, json.dumps(LINE).encode()]))
    statistics = Statistics(private, max_bytes=1 << 20, max_files=2)
    with log.open("rb") as stream:
        statistics._count(stream)
        assert stream.read() == b""
    assert statistics.counted()["indexes"]["root/dev"]["requests"] >= 1


@given(
    text=st.text(max_size=30) | st.sampled_from(["9" * 5000, "-1", "1e9", "\u0663"]), status=st.sampled_from([429, 503])
)
def test_when_to_ask_an_upstream_again(text: str, status: int) -> None:
    with suppress(ValueError, UnicodeEncodeError):
        response = httpx.Response(status, headers=[(b"Retry-After", text.encode())])
        assert _retry_after(response) >= 0


@given(text=st.text(max_size=30))
def test_a_policy(text: str) -> None:
    with suppress(ValueError, Refusal):
        Policy.parse(text)
