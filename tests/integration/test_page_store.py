"""Pages that are kept as files: always what devpi would answer, gone when they are not, there when devpi can't ask."""

from __future__ import annotations

import gzip
import json
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.indexed_server import HTML, JSON, at_once, change, get, make_indexes, upload
from tests.server_process import PATIENCE, Server, request
from tests.upstream import Upstream, make_wheel

NAMES = ("alpha", "beta", "gamma")
WITHOUT_NGINX = pytest.param("process", "python", marks=pytest.mark.server)
EACH_FRONT = [
    pytest.param("process", "auto", marks=pytest.mark.server),
    WITHOUT_NGINX,
    pytest.param("docker", "auto", marks=pytest.mark.docker),
]


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in NAMES]) as running:
        yield running


@pytest.fixture
def front(request: pytest.FixtureRequest) -> str:
    """Who answers clients: nginx where there is one, unless a test says otherwise."""
    return str(getattr(request, "param", "auto"))


@pytest.fixture
def server(anywhere: Server, front: str) -> Server:
    return anywhere.start("--request-timeout", "5", "--front", front)


def page(index: str, project: str) -> str:
    return f"/{index}/+simple/{project}/"


def files(server: Server, index: str, project: str) -> set[str]:
    directory = server.private / "pages" / index / project
    return {path.name for path in directory.iterdir()} if directory.exists() else set()


def stamped(server: Server) -> int:
    return int(json.loads((server.private / "pages.stamp").read_bytes())["serial"])


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("anywhere", "front"), EACH_FRONT, indirect=True)
def test_a_page_is_a_file_with_devpis_bytes(server: Server, upstream: Upstream) -> None:
    make_indexes(server.port, server.auth, upstream)
    for headers, name in ((JSON, "json"), (HTML, "html")):
        own = get(server.port, page("root/dev", "alpha") + "?devpi", headers)
        kept = get(server.port, page("root/dev", "alpha"), headers)
        again = get(server.port, page("root/dev", "alpha"), headers)
        directory = server.private / "pages" / "root" / "dev" / "alpha"
        assert own.body == kept.body == again.body == (directory / name).read_bytes()
        assert own.headers["content-type"].lower() == again.headers["content-type"].lower()
        assert gzip.decompress((directory / f"{name}.gz").read_bytes()) == own.body
        packed = get(server.port, page("root/dev", "alpha"), {**headers, "Accept-Encoding": "gzip"})
        assert gzip.decompress(packed.body) == own.body
        assert "x-devpi-serial" not in again.headers  # devpi was not asked
        head = get(server.port, page("root/dev", "alpha"), headers, "HEAD")
        assert (head.status, head.body) == (200, b"")
    for path in (server.private / "pages").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)


@pytest.mark.parametrize(("anywhere", "front"), [WITHOUT_NGINX], indirect=True)  # nginx takes such headers away
def test_browsers_and_headers_that_change_the_answer_are_not_served_from_files(
    server: Server, upstream: Upstream
) -> None:
    make_indexes(server.port, server.auth, upstream)
    path = page("root/dev", "alpha")
    human = {"Accept": "text/html", "User-Agent": "Mozilla/5.0", "Host": "evil-example"}
    assert b"evil-example" in get(server.port, path, human).body
    absolute = {**JSON, "X-Devpi-Absolute-Urls": "", "Host": "evil-example", "X-Outside-Url": "http://worse-example/x"}
    assert b"evil-example" in get(server.port, path, absolute).body
    assert b"worse-example" not in get(server.port, path, absolute).body
    for headers in (JSON, HTML):
        outside = get(server.port, path, {**headers, "X-Outside-Url": "http://evil-example"})
        assert outside.status == 200
        assert b"evil-example" not in get(server.port, path, headers).body


def test_writes_are_kept_and_seen_by_the_very_next_request(server: Server, upstream: Upstream) -> None:
    auth = server.auth
    make_indexes(server.port, auth, upstream)
    path = page("root/dev", "alpha")
    for number in range(5):
        get(server.port, path, JSON)
        get(server.port, path, HTML)
        assert files(server, "root/dev", "alpha")
        wheel = make_wheel("alpha", f"2.{number}")
        assert upload(server, auth, "root/dev", wheel) == 200
        assert not files(server, "root/dev", "alpha")
        assert wheel.filename.encode() in get(server.port, path, JSON).body
        assert wheel.filename.encode() in get(server.port, path, HTML).body
        status, _ = request(server.port, "DELETE", f"/root/dev/alpha/2.{number}", headers=auth)
        assert status == 200
        assert wheel.filename.encode() not in get(server.port, path, JSON).body
    assert b"alpha-1.0" in get(server.port, path, JSON).body
    status, _ = request(server.port, "PATCH", "/root/dev", body=["bases="], headers=auth)
    assert status == 200
    assert get(server.port, path, JSON).status == 404
    server.send(signal.SIGTERM)
    server.start()
    assert request(server.port, "GET", "/root/dev")[1]["result"]["bases"] == []


@pytest.mark.parametrize(("anywhere", "front"), EACH_FRONT, indirect=True)
def test_a_thousand_random_requests_are_answered_as_by_devpi(server: Server, upstream: Upstream) -> None:
    """Requests and writes in any order, while other clients ask for the same pages all the time."""
    chance = random.Random(20_24)
    auth = server.auth
    make_indexes(server.port, auth, upstream)
    assert (
        request(server.port, "PUT", "/root/team", body={"type": "stage", "bases": ["root/dev"]}, headers=auth)[0] == 200
    )
    indexes = ("root/pypi", "root/dev", "root/team")
    stop = threading.Event()

    def others(seed: int) -> None:
        own = random.Random(seed)
        while not stop.is_set():
            get(server.port, page(own.choice(indexes), own.choice(NAMES)), own.choice((JSON, HTML)))

    noise = [threading.Thread(target=others, args=(seed,)) for seed in range(2)]
    for thread in noise:
        thread.start()
    warm = writes = 0
    try:
        for number in range(1000):
            if chance.random() < 0.06:
                writes += change(chance, server, auth, number, indexes=("root/dev", "root/team"), names=NAMES)
            path, headers = page(chance.choice(indexes), chance.choice(NAMES)), chance.choice((JSON, HTML))
            ours, own = get(server.port, path, headers), get(server.port, path + "?devpi", headers)
            assert (ours.status, ours.body) == (own.status, own.body), (number, path, headers)
            warm += "x-devpi-serial" not in ours.headers
    finally:
        stop.set()
        for thread in noise:
            thread.join()
    assert writes > 20
    assert warm > 300  # else nothing was tested


def test_pages_of_mirrors_become_due(server: Server, upstream: Upstream) -> None:
    make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=1)
    path = page("root/dev", "alpha")
    get(server.port, path, JSON)
    upstream.add(make_wheel("alpha", "9.0"))
    wait_until(lambda: not files(server, "root/dev", "alpha"))
    assert b"alpha-9.0" in get(server.port, path, JSON).body


def test_warm_pages_survive_an_upstream_that_is_gone_or_hangs_also_after_a_restart(
    server: Server, upstream: Upstream
) -> None:
    make_indexes(server.port, server.auth, upstream, mirror_cache_expiry=1)
    known = {name: get(server.port, page("root/dev", name), JSON).body for name in NAMES}
    wait_until(lambda: not any(files(server, "root/dev", name) for name in NAMES))
    upstream.faults.hang = True
    for _ in range(2):
        for name in NAMES:
            assert get(server.port, page("root/dev", name), JSON).body == known[name]
        asked = upstream.pages()
        assert asked <= len(NAMES) + 4
        server.send(signal.SIGKILL)
        server.start("--request-timeout", "5")
    upstream.stop()
    for name in NAMES:
        assert get(server.port, page("root/dev", name), JSON).body == known[name]
    upstream.faults.hang = False
    upstream.add(make_wheel("alpha", "9.0"))
    upstream.start()
    wait_until(lambda: b"alpha-9.0" in get(server.port, page("root/dev", "alpha"), JSON).body)


def test_an_orderly_stop_keeps_the_pages_of_the_last_moment(server: Server, upstream: Upstream) -> None:
    make_indexes(server.port, server.auth, upstream)
    known = {name: get(server.port, page("root/dev", name), JSON).body for name in NAMES}
    server.send(signal.SIGTERM)
    server.start()
    assert all(files(server, "root/dev", name) for name in NAMES)
    assert {name: get(server.port, page("root/dev", name), JSON).body for name in NAMES} == known


def test_a_kill_between_a_write_and_a_page_leaves_no_old_page(server: Server, upstream: Upstream) -> None:
    auth = server.auth
    make_indexes(server.port, auth, upstream)
    for number in range(3):
        assert upload(server, auth, "root/dev", make_wheel("alpha", f"2.{number}")) == 200
        path = page("root/dev", "alpha")
        seen = at_once(server.port, [(path, JSON)] * 4)
        assert {got.body for got in seen} == {get(server.port, path + "?devpi", JSON).body}
        committed = int(get(server.port, "/+api", JSON).headers["x-devpi-serial"])
        wait_until(lambda least=committed: stamped(server) >= least)
        server.send(signal.SIGKILL)
        server.start()
        assert files(server, "root/dev", "alpha")
        assert get(server.port, path, JSON).body == seen[0].body
