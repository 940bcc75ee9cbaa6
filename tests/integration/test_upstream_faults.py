"""An upstream that hangs, is gone, refuses or lies: what is warm stays, what is not is told, nobody else suffers."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin

import pytest

from tests.indexed_server import FILE, HTML, JSON, PATIENCE, at_once, get, make_indexes
from tests.server_process import Server, request
from tests.upstream import JSON_TYPE, Distribution, Upstream, make_wheel

STUCK = 60
NAMES = ("alpha", "beta", "gamma")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in NAMES]) as running:
        yield running


@pytest.fixture
def start(anywhere: Server) -> Callable[..., Server]:
    def begin(*words: str) -> Server:
        # As a process the harder case: without nginx every warm page needs a thread of devpi's own.
        return anywhere.start("--front", "python", *words)

    return begin


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def page(index: str, project: str) -> str:
    return f"/{index}/+simple/{project}/"


@pytest.mark.parametrize("same", [True, False], ids=["one page", "as many pages"])
def test_a_hanging_upstream_takes_neither_warm_pages_nor_other_upstreams_along(
    start: Callable[..., Server], upstream: Upstream, *, same: bool
) -> None:
    server = start("--request-timeout", "60")
    make_indexes(server.port, server.auth, upstream)
    warm = get(server.port, page("root/dev", "alpha"), JSON)
    with Upstream([make_wheel("other", "1.0"), make_wheel("beta", "1.0")]) as other:
        mirror = {"type": "mirror", "mirror_url": other.simple_url, "mirror_no_project_list": True}
        assert request(server.port, "PUT", "/root/other", body=mirror, headers=server.auth)[0] == 200
        assert get(server.port, page("root/dev", "alpha"), JSON).body == warm.body
        upstream.faults.hang = True
        paths = [page("root/dev", "beta" if same else f"cold{number}") for number in range(STUCK)]
        with ThreadPoolExecutor(STUCK) as pool:
            stuck = [pool.submit(get, server.port, path, JSON) for path in paths]
            wait_until(lambda: upstream.pages() > 1)
            for _ in range(20):
                assert get(server.port, page("root/dev", "alpha"), JSON).body == warm.body
            assert get(server.port, page("root/other", "other"), JSON).status == 200
            assert get(server.port, page("root/other", "beta"), JSON).status == 200  # what the others hang on
            assert not all(future.done() for future in stuck)  # all of that was while they hung
            told = [future.result() for future in stuck if future.done()]
            assert all(got.status == 503 and got.headers["retry-after"] for got in told)
            upstream.stop()
        assert {future.result().status for future in stuck} <= {502, 503}


@pytest.mark.endurance_of("docker")
def test_an_upstream_that_is_gone_is_asked_no_more_until_it_is_back(
    start: Callable[..., Server], upstream: Upstream
) -> None:
    server = start("--request-timeout", "5")
    make_indexes(server.port, server.auth, upstream)
    upstream.faults.hang = True
    assert get(server.port, page("root/dev", "alpha"), JSON).status == 502
    asked = upstream.pages()
    for index in ("root/dev", "root/pypi"):
        for name in NAMES:
            assert get(server.port, page(index, name), JSON).status == 502
    assert upstream.pages() - asked <= 1  # one may have tried whether it is back
    upstream.faults.hang = False
    wait_until(lambda: get(server.port, page("root/dev", "alpha"), JSON).status == 200)
    assert [get(server.port, page("root/pypi", name), JSON).status for name in NAMES] == [200] * 3


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_refusals_are_not_taken_for_no_such_project(
    start: Callable[..., Server], upstream: Upstream, status: int
) -> None:
    server = start()
    make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=1)
    known = get(server.port, page("root/dev", "alpha"), JSON).body
    upstream.faults.status = status
    for index in ("root/pypi", "root/dev"):
        assert get(server.port, page(index, "beta"), JSON).status == 502
    wait_until(lambda: not (server.private / "pages/root/dev/alpha").exists())
    assert get(server.port, page("root/dev", "alpha"), JSON).body == known
    upstream.faults.status = 0
    assert get(server.port, page("root/dev", "beta"), HTML).status == 200


NO_PAGE = {
    "an image": (200, "image/png", b"\x89PNG"),
    "of no kind that pip takes": (200, "application/octet-stream", b'{"files": []}'),
    "not JSON": (200, JSON_TYPE, b"<html>down for maintenance</html>"),
    "JSON of something else": (200, JSON_TYPE, b"[1, 2]"),
    "an address that is none": (
        200,
        JSON_TYPE,
        b'{"meta": {"api-version": "1.0"}, "files": [{"filename": "x-1.0.zip", "url": "http://[::1/x", "hashes": {}}]}',
    ),
    "the same as nothing": (304, JSON_TYPE, b""),
}


@pytest.mark.endurance_of("docker")
def test_what_is_no_page_is_not_taken_for_one(start: Callable[..., Server], upstream: Upstream) -> None:
    server = start()
    make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=1)
    known = get(server.port, page("root/dev", "alpha"), JSON).body
    told = {}
    for what, instead in NO_PAGE.items():
        upstream.faults.instead = instead
        told[what] = {get(server.port, page("root/dev", "beta"), headers).status for headers in (JSON, HTML)}
        wait_until(lambda: not (server.private / "pages/root/dev/alpha").exists())
        told[what].add(get(server.port, page("root/dev", "alpha"), HTML).status)  # a form of it that is not at hand
        assert get(server.port, page("root/dev", "alpha"), JSON).body == known, what
    assert told == {what: {502, 200} for what in NO_PAGE}
    upstream.faults.instead = None
    assert get(server.port, page("root/dev", "beta"), JSON).status == 200


def test_a_page_that_names_its_charset_is_one(start: Callable[..., Server], upstream: Upstream) -> None:
    server = start()
    make_indexes(server.port, server.auth, upstream)
    upstream.faults.charset = "; charset=utf-8"
    assert b"alpha-1.0" in get(server.port, page("root/dev", "alpha"), JSON).body


@pytest.mark.endurance_of("docker")
def test_a_page_that_takes_too_long_or_fails_late_is_never_told_as_absent(
    start: Callable[..., Server], upstream: Upstream
) -> None:
    server = start("--request-timeout", "2")
    make_indexes(server.port, server.auth, upstream)
    upstream.faults.bandwidth = 40  # several times as long as there is
    told = {"alpha": [0], "beta": [0]}
    upstream.faults.short_body = True
    told["beta"].append(get(server.port, page("root/dev", "beta"), JSON).status)
    upstream.faults.short_body = False
    for project, statuses in told.items():
        while statuses[-1] != 200:
            statuses.append(get(server.port, page("root/dev", project), JSON).status)
            assert statuses[-1] in (200, 502, 503)  # 503: try again, the page is still on its way
    assert {told["alpha"][1], told["beta"][1]} <= {502, 503}


def test_no_such_project_is_no_fault(start: Callable[..., Server], upstream: Upstream) -> None:
    server = start()
    make_indexes(server.port, server.auth, upstream)
    answers = at_once(server.port, [(page("root/dev", "missing"), JSON)] * 8)
    assert {got.status for got in answers} == {404}
    assert get(server.port, page("root/pypi", "missing"), JSON).status == 404
    assert upstream.pages("missing") == 1


def test_credentials_go_to_their_own_upstream_and_to_no_host_that_a_link_names(
    start: Callable[..., Server], upstream: Upstream
) -> None:
    server = start()
    wheel = make_wheel("private", "1.0")
    with Upstream([wheel]) as elsewhere, Upstream([wheel]) as private:
        private.elsewhere[wheel.filename] = f"{elsewhere.url}/files/{wheel.filename}"
        private.faults.auth = ("deploy", "canary")
        url = private.simple_url.replace("://", "://deploy:canary@")
        make_indexes(server.port, server.auth, upstream, mirror_url=url)
        told = json.loads(get(server.port, page("root/pypi", "private"), JSON).body)
        path = urljoin(page("root/pypi", "private"), told["files"][0]["url"])
        assert get(server.port, path, FILE).body == wheel.content
        assert private.requests[-1].authorization
        assert elsewhere.files() == 1
        assert {asked.authorization for asked in elsewhere.requests} == {None}


def test_a_huge_page_is_served_whole(start: Callable[..., Server], upstream: Upstream) -> None:
    server = start()
    make_indexes(server.port, server.auth, upstream)
    upstream.add(
        *(
            Distribution(project="huge", version=f"1.{n}", filename=f"huge-1.{n}.tar.gz", content=b"")
            for n in range(3000)
        )
    )
    answers = at_once(server.port, [(page("root/dev", "huge"), JSON)] * 8)
    assert {len(json.loads(got.body)["files"]) for got in answers} == {3000}
    assert upstream.pages("huge") == 1
