"""Upstreams by TLS: only the certificate of the one that was asked for, by whom one trusts, and in time, is taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.contained import BOTH
from tests.engines import need
from tests.indexed_server import JSON, get
from tests.integration.cli import Cli
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

HOST = "127.0.0.1"
PAST = timedelta(days=30)


@pytest.fixture(params=BOTH)
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(home=tmp_path, engine=request.param, network="host")
    made.extra |= dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"), "")
    try:
        yield made
    finally:
        made.clean()


def page(index: str, project: str) -> str:
    return f"/{index}/+simple/{project}/"


def until_due(kept: Path) -> None:
    """Until a page that was known is to be asked for again."""
    deadline = time.monotonic() + PATIENCE
    while kept.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_no_other_certificate_is_taken_and_what_is_known_stays(cli: Cli, tmp_path: Path) -> None:
    own, stranger = Authority(tmp_path / "own"), Authority(tmp_path / "stranger")
    wheels = [make_wheel(name, "1.0") for name in ("alpha", "beta")]
    bad = {
        "nobody": stranger.context(HOST),
        "other-host": own.context("127.0.0.2"),
        "expired": own.context(HOST, age=PAST),
        "not-yet": own.context(HOST, age=-PAST),
    }
    with ExitStack() as stack:
        good = stack.enter_context(Upstream(wheels, tls=own.context(HOST), keep_alive=False))
        upstreams = {name: stack.enter_context(Upstream(wheels, tls=context)) for name, context in bad.items()}
        cli.upstream = good.simple_url
        up = cli.up("--no-pip", "--set", f"network.ca_file={own.file}", "--set", "indexes.root/pypi.cache_expiry=1")
        assert up.code == 0, up.err
        auth = Server(cli.data, cli.port).auth
        known = get(cli.port, page("root/dev", "alpha"), JSON)
        assert known.status == 200
        for name, upstream in upstreams.items():
            mirror = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True}
            assert request(cli.port, "PUT", f"/root/{name}", body=mirror, headers=auth)[0] == 200
            assert get(cli.port, page(f"root/{name}", "alpha"), JSON).status == 502, name
            assert upstream.requests == (), name

        good.stop()
        good.tls = own.context(HOST, age=PAST)
        good.start()
        good.forget()
        assert get(cli.port, page("root/dev", "beta"), JSON).status == 502
        until_due(cli.data / ".deployer/pages/root/dev/alpha")
        assert get(cli.port, page("root/dev", "alpha"), JSON).body == known.body
        assert good.requests == ()
