"""The benchmarks run and count rightly, at a size at which they measure nothing: no time is asserted."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from benchmarks import ci, costs, prewarm, resolution
from benchmarks.addresses import CLIENTS, addresses
from benchmarks.bench import Bench, Scale, bench
from benchmarks.changes import CHANGES, FAILED, changes
from benchmarks.client import install, lock, resolve
from benchmarks.cold import DIRECT, METADATA, OF_WHEELS, PAGE, resolving_stampede, stampede
from benchmarks.faults import faults
from benchmarks.index import GROUPS, Size
from benchmarks.peers.base import Peer
from benchmarks.peers.ours import Ours
from benchmarks.peers.plain_nginx import NginxCache, NginxStatic
from benchmarks.tools import beside_this_python
from benchmarks.transparent import ADDRESS, TRANSPARENT, transparent
from benchmarks.upload import uploads
from benchmarks.vpn import AGAIN, WITHOUT, vpn
from benchmarks.warm import BASE, pip_downloading, serving

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(NGINX is None, reason="the peers are made of nginx, which is not installed"),
]
TINY = Scale(
    rounds=1,
    few=1,
    seconds=0.2,
    size=Size(small=3, medium=2, large=2, megabytes=0.2, links=40),
    resolved=Size(small=3, medium=2, large=2, megabytes=1.4, links=40, even=True),
    project=Size(small=3, medium=2, large=2, megabytes=0.2, links=40),
    prewarmed=Size(small=3, medium=2, large=2, megabytes=0.2, links=40),
    cold_files=2,
    long_page=60,
    huge=1,
    peers=(NginxStatic, NginxCache, Ours),
    clients=(3,),
    stuck=3,
    bundled=1,
    uploads=2,
    rtt=0.001,
    rate=0,
    slow_default_start=False,
)


@pytest.fixture(scope="module")
def made() -> Iterator[Bench]:
    with bench(TINY, beside_this_python()) as made:
        yield made


def only(made: Bench, *peers: type[Peer]) -> Bench:
    """The same surroundings with fewer peers."""
    return replace(made, scale=replace(made.scale, peers=peers))


def test_one_installer_takes_every_wheel_once(made: Bench) -> None:
    made.upstream.forget()
    done = install(made, f"{made.origin}/simple/", made.index.wanted(*GROUPS))
    assert done.failed == 0, done.said
    asked = made.upstream.asked()
    assert dict(asked.wheels) == {wheel.filename: 1 for wheel in made.index.wheels.values()}
    assert dict(asked.pages) == dict.fromkeys(made.index.wheels, 1)
    assert asked.megabytes >= made.index.megabytes(*GROUPS)


@pytest.mark.endurance
def test_pip_takes_every_wheel_by_its_own_addresses(made: Bench) -> None:
    (grid,) = pip_downloading(only(made, NginxStatic, Ours))
    assert set(grid.samples) == {BASE, Ours.name}, grid.notes
    assert grid.of(Ours.name, "failed") == grid.of(BASE, "failed") == [0]
    assert all(goal.values for goal in grid.goals)


@pytest.mark.endurance
def test_a_change_on_a_process_fails_no_request(made: Bench) -> None:
    (grid,) = changes(made)
    assert [grid.of(f"process: {change}", FAILED) for change in CHANGES] == [[0]] * len(CHANGES), grid.notes
    assert all(goal.verdict == "reached" for goal in grid.goals)


def test_behind_a_vpn_nothing_is_fetched_again(made: Bench) -> None:
    (grid,) = vpn(made)
    assert set(grid.samples) == {WITHOUT, BASE, Ours.name}, grid.notes
    assert [grid.of(row, "failed") for row in grid.samples] == [[0]] * 3
    assert grid.of(Ours.name, "again: MB fetched") == [0]
    assert len(grid.of(Ours.name, AGAIN)) == 1
    assert all(goal.values for goal in grid.goals)


def test_one_resolution_takes_every_metadata_file_once_and_no_wheel(made: Bench) -> None:
    index = made.promising.index
    made.promising.forget()
    done = resolve(made, f"{made.promising.origin}/simple/", index.wanted(*GROUPS), pins=index.count(*GROUPS))
    assert done.failed == 0, done.said
    asked = made.promising.asked()
    assert dict(asked.metadata) == {wheel.filename: 1 for wheel in index.wheels.values()}
    assert not asked.wheels and asked.of_wheels == 0


def test_without_core_metadata_a_resolution_reads_parts_of_wheels(made: Bench) -> None:
    index = made.bare.index
    made.bare.forget()
    done = resolve(made, f"{made.bare.origin}/simple/", index.wanted(*GROUPS), pins=index.count(*GROUPS))
    assert done.failed == 0, done.said
    asked = made.bare.asked()
    assert not asked.metadata
    assert set(asked.wheels) == {wheel.filename for wheel in index.wheels.values()}
    assert 0 < asked.of_wheels < 1e6 * index.megabytes(*GROUPS) / 2


def test_a_lock_holds_every_package(made: Bench) -> None:
    index, url = made.promising.index, f"{made.promising.origin}/simple/"
    done = lock(made, url, index.wanted(*GROUPS), packages=index.count(*GROUPS))
    assert done.failed == 0, done.said
    assert lock(made, url, index.wanted("small"), packages=index.count(*GROUPS)).failed == 1


def test_failures_are_counted(made: Bench) -> None:
    done = install(made, f"{made.origin}/simple/", ["bench-missing"], clients=2)
    assert done.failed == 2
    assert "bench-missing" in done.said
    url = f"{made.promising.origin}/simple/"
    assert resolve(made, url, made.promising.index.wanted("small"), pins=1, clients=2).failed == 2


def test_pages_are_as_long_as_asked_for_in_both_forms(made: Bench) -> None:
    url = f"{made.origin}/simple/{made.index.longest}/"
    as_json = httpx.get(url, headers={"Accept": "application/vnd.pypi.simple.v1+json"}, trust_env=False)
    as_html = httpx.get(url, headers={"Accept": "text/html"}, trust_env=False)
    assert len(as_json.json()["files"]) == as_html.text.count("<a ") == TINY.size.links


def test_the_relay_breaks_and_mends(made: Bench) -> None:
    url = f"{made.slow.origin}/simple/{made.index.usual}/"
    try:
        assert httpx.get(url, trust_env=False).status_code == 200
        made.slow.become("hang")
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url, trust_env=False, timeout=0.3)
        made.slow.become("refuse")
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", made.slow.port))  # it would not pass again
    finally:
        made.slow.become("pass")
    assert httpx.get(url, trust_env=False).status_code == 200


@pytest.mark.endurance
def test_a_stampede_without_a_server_fetches_everything_as_often_as_there_are_clients(made: Bench) -> None:
    (grid,) = stampede(only(made, Ours))
    wheels = made.index.count("small", "medium")
    assert grid.of(DIRECT, "wheel fetches") == [3 * wheels]
    assert grid.of(DIRECT, "wheel: most, times") == [3]
    assert grid.of(DIRECT, "failed clients") == grid.of(Ours.name, "failed clients") == [0]
    assert grid.of(Ours.name, "page: most, times") == [1]


@pytest.mark.endurance
def test_a_stampede_of_resolutions_fetches_each_metadata_file_for_every_client(made: Bench) -> None:
    promising, bare = resolving_stampede(only(made, Ours))
    packages = made.promising.index.count("small", "medium")
    assert promising.of(DIRECT, "metadata fetches") == [3 * packages]
    assert promising.of(DIRECT, METADATA) == [3]
    assert promising.of(DIRECT, OF_WHEELS) == [0] == bare.of(DIRECT, "metadata fetches")
    for grid in (promising, bare):
        assert grid.of(DIRECT, "failed clients") == grid.of(Ours.name, "failed clients") == [0]
        assert grid.of(DIRECT, PAGE) == [3] and grid.of(Ours.name, PAGE) == [1]


@pytest.mark.endurance
def test_resolution_is_measured_from_empty_servers_and_from_warm_ones(made: Bench) -> None:
    for grid in resolution.cold(only(made, Ours)):
        assert set(grid.samples) == {DIRECT, Ours.name}
        assert all(failed == 0 for name in grid.samples for failed in grid.of(name, "failed"))
        assert all(goal.values for goal in grid.goals if "pypiron" not in goal.what)
    for grid in resolution.warm(only(made, NginxStatic, Ours)):
        assert set(grid.samples) == {resolution.OVER_SLOW, NginxStatic.name, Ours.name}
        assert not grid.lost


@pytest.mark.endurance
def test_what_a_page_and_a_file_cost_is_counted(made: Bench) -> None:
    (pages,) = costs.pages(only(made, NginxCache, Ours))
    assert pages.of(Ours.name, costs.PAGE_COMMITS)[0] <= 1
    assert not pages.of(NginxCache.name, costs.PAGE_COMMITS)
    files, first = costs.files(only(made, NginxCache, Ours))
    assert 1 <= files.of(Ours.name, costs.FILE_COMMITS)[0] <= 2
    assert files.of(Ours.name, costs.CHANGELOG)[0] > 0
    assert set(files.samples) == {NginxCache.name, Ours.name}
    assert set(first.samples) == {DIRECT, NginxCache.name, Ours.name}
    assert all(goal.values for grid in (pages, files, first) for goal in grid.goals)


@pytest.mark.endurance
def test_pages_and_files_come_by_the_addresses_of_uv_and_of_pip(made: Bench) -> None:
    (grid,) = addresses(only(made, Ours))
    assert grid.of(Ours.name, "not 2xx") == [0]
    assert all(grid.of(Ours.name, column) for column in grid.columns)
    uv, pip = CLIENTS
    url = "http://host:1/root/pypi/+f/a+b.whl?c+d"
    assert (uv.address(url), pip.address(url)) == (url, "http://host:1/root/pypi/%2Bf/a%2Bb.whl?c+d")


@pytest.mark.endurance
def test_the_tables_have_a_row_of_every_peer_and_say_what_is_reached(made: Bench) -> None:
    (grid,) = serving(only(made, NginxStatic, Ours))
    assert set(grid.samples) == {NginxStatic.name, Ours.name}
    assert all(grid.of(name, "not 2xx") == [0] for name in grid.samples)
    assert all(goal.verdict in ("reached", "**not reached**") for goal in grid.goals)
    assert f"| {Ours.name} |" in grid.text()


def test_who_does_not_come_up_is_left_out_and_the_others_stay(made: Bench) -> None:
    class Lame(NginxStatic):
        name = "lame"

        def start(self) -> None:
            raise SystemExit("lame does not start:\nits log")

    (grid,) = serving(only(made, NginxStatic, Lame))
    assert set(grid.samples) == {NginxStatic.name}
    assert "*lame* was not measured: lame does not start:" in grid.notes


def test_what_is_uploaded_is_on_the_next_page(made: Bench) -> None:
    (grid,) = uploads(made)
    assert grid.of(Ours.name, "uploads") == [TINY.uploads]
    assert grid.of(Ours.name, "next page without it") == [0]


@pytest.mark.endurance
def test_a_prewarm_fetches_each_wheel_once_and_nothing_again(made: Bench) -> None:
    (grid,) = prewarm.prewarm(made)
    for row in (prewarm.WARM, prewarm.LOCKED):
        assert grid.of(row, prewarm.TIMES) == [1]
        assert grid.of(row, prewarm.FETCHED_AGAIN) == [0]
    assert all(goal.values for goal in grid.goals)


@pytest.mark.endurance
def test_a_broken_upstream_fails_no_warm_install(made: Bench) -> None:
    installs, stuck = faults(only(made, Ours))
    assert installs.of(Ours.name, "failed") == [0]
    assert len(stuck.goals) == 1 and stuck.goals[0].values


def test_a_transparent_installer_gets_everything_from_the_deployment(made: Bench) -> None:
    made.upstream.forget()
    (grid,) = transparent(made)
    assert not grid.lost
    assert set(grid.samples) == {ADDRESS, TRANSPARENT}
    # Once for the first install, whoever asks, however often.
    assert set(made.upstream.asked().wheels.values()) == {1}
    assert len(grid.goals) == 3 and all(goal.values for goal in grid.goals)


@pytest.mark.endurance
def test_jobs(made: Bench) -> None:
    (grid,) = ci.jobs(made)
    assert set(grid.samples) == {ci.NOTHING, ci.PIP, ci.OURS} and not grid.lost
