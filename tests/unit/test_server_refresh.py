"""`POST /+deployer/refresh`: only who can read the server directory may, once for each challenge, and while online."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("devpi_server")

from pyramid.request import Request

from deployer.protocol import REFRESH_ROUTE, OfflineRequest, RefreshRequest, client_proof
from deployer.server import secret_files
from deployer.server.challenge import Challenge
from deployer.server.middleware.orders import Orders
from deployer.server.mirrors import rules
from deployer.server.mirrors.refreshing import Refreshing
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.secret_files import Private

UUID = "ab" * 16
WANTED = RefreshRequest(index="root/pypi", projects=("alpha",))


class Upstream:
    """Stands for the upstreams; it records what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...] | None]] = []

    def refresh(self, index: str, projects: tuple[str, ...] | None) -> Mapping[str, str]:
        if index != "root/pypi":
            raise LookupError(index)
        self.asked.append((index, projects))
        return dict.fromkeys(projects or ("alpha", "beta"), "changed")


class Bench:
    def __init__(self, directory: Path) -> None:
        private = Private.of(directory)
        private.directory.mkdir()
        secret_files.ensure_keys(private)
        self.key = private.proof_key.read_text()
        self.challenge = Challenge(private, UUID)
        self.upstream = Upstream()
        self.offline = False
        self.passed: list[str] = []
        refreshing = Refreshing(self.upstream, self.challenge, offline=lambda: self.offline)
        orders = Orders({REFRESH_ROUTE: refreshing.view})
        self.tween = orders.tween(lambda request: self.passed.append(f"{request.method} {request.path_info}"))

    def proved(self, wanted: RefreshRequest) -> dict[str, object]:
        proof = client_proof(self.key, challenge=self.challenge.words, uuid=UUID, order=wanted.order)
        return replace(wanted, proof=proof).json

    def post(self, body: object) -> Any:
        return self.tween(Request.blank(REFRESH_ROUTE, method="POST", json_body=body))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("wanted", [WANTED, replace(WANTED, projects=None)])
def test_who_has_the_key_has_an_upstream_asked(bench: Bench, wanted: RefreshRequest) -> None:
    response = bench.post(bench.proved(wanted))
    assert response.status_code == 200
    found = dict.fromkeys(wanted.projects or ("alpha", "beta"), "changed")
    assert response.json_body == {"index": "root/pypi", "projects": found}
    assert bench.upstream.asked == [("root/pypi", wanted.projects)]


def test_a_proof_is_valid_once(bench: Bench) -> None:
    body = bench.proved(WANTED)
    assert [bench.post(body).status_code for _ in range(2)] == [200, 403]
    assert len(bench.upstream.asked) == 1


def test_a_proof_is_for_one_order(bench: Bench) -> None:
    body = bench.proved(WANTED)
    for other in ({"projects": ["beta"]}, {"projects": None}, {"index": "root/other"}):
        assert bench.post({**body, **other}).status_code == 403
    switch = OfflineRequest(offline=True)
    assert not bench.challenge.admit(switch.order, str(body["proof"]))
    assert bench.post(body).status_code == 200  # what failed has used up nothing


@pytest.mark.parametrize("body", [None, [], {}, {"index": "root/pypi"}, {"index": "root/pypi", "proof": "x"}, "x"])
def test_others_have_nobody_asked(bench: Bench, body: object) -> None:
    response = bench.post(body)
    assert response.status_code == 403 and "proof" in response.json_body["message"]
    assert bench.tween(Request.blank(REFRESH_ROUTE, method="POST", body=b"[" * 100_000)).status_code == 403
    assert bench.upstream.asked == []


def test_offline_nobody_is_asked(bench: Bench) -> None:
    bench.offline = True
    response = bench.post(bench.proved(WANTED))
    assert response.status_code == 400 and "offline" in response.json_body["message"]
    assert bench.upstream.asked == []


def test_an_index_that_is_no_mirror(bench: Bench) -> None:
    response = bench.post(bench.proved(replace(WANTED, index="root/dev")))
    assert response.status_code == 404
    assert response.json_body["message"] == "there is no mirror root/dev"


def test_other_requests_pass(bench: Bench) -> None:
    for method, path in (("GET", REFRESH_ROUTE), ("POST", "/root/pypi"), ("POST", f"{REFRESH_ROUTE}/x")):
        bench.tween(Request.blank(path, method=method))
    assert bench.passed == [f"GET {REFRESH_ROUTE}", "POST /root/pypi", f"POST {REFRESH_ROUTE}/x"]


@pytest.mark.parametrize("given", [MirrorRules(not_found_expiry=5, keep_deleted=True), None])
def test_the_rules_of_a_server_are_those_it_was_started_with(given: MirrorRules | None) -> None:
    config = SimpleNamespace(pluginmanager=SimpleNamespace(get_plugin={rules.NAME: given}.get))
    assert rules.given(config) == (given or MirrorRules(not_found_expiry=60, keep_deleted=False))
