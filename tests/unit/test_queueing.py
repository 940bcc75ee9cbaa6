"""The simulation of queues gives what queueing theory gives, and the model of a cluster what its arithmetic gives."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from functools import partial

import pytest

from benchmarks.queueing import Simulation, Station
from benchmarks.scale import Costs, Load, most_uploads, simulate, through_cdn

COSTS = Costs(page=13e-6, file=300e-6, upload=0.012, follow=0.003, report=0.0015)
CUSTOMERS = 60_000


def times_in(servers: int, rate: float, service: Callable[[random.Random], float]) -> tuple[list[float], float]:
    """How long each customer was there, with arrivals at random, ``rate`` a second; and the part of the time in which
    a server is busy."""
    chance, simulation = random.Random(7), Simulation()
    station, seen = Station(simulation, servers), list[float]()

    def arrive() -> None:
        since = simulation.now
        station.serve(service(chance), lambda: seen.append(simulation.now - since))
        simulation.after(chance.expovariate(rate), arrive)

    simulation.after(0, arrive)
    simulation.run(CUSTOMERS / rate)
    return seen, station.use()


def exponential(chance: random.Random) -> float:
    return chance.expovariate(1.0)


@pytest.mark.parametrize(
    ("servers", "rate", "service", "mean"),
    [
        (1, 0.5, exponential, 2.0),  # M/M/1: 1 / (1 - 0.5)
        (1, 0.8, exponential, 5.0),
        (1, 0.5, lambda _: 1.0, 1.5),  # M/D/1, by Pollaczek and Khinchine: 1 + 0.5 / (2 * (1 - 0.5))
        (2, 1.0, exponential, 4 / 3),  # M/M/2, by Erlang C: 1 + (1 / 3) / (2 - 1)
        (3, 1.5, exponential, 1.157895),  # M/M/3: 1 + 0.236842 / (3 - 1.5)
    ],
)
def test_the_mean_time_is_that_of_theory(
    servers: int, rate: float, service: Callable[[random.Random], float], mean: float
) -> None:
    seen, use = times_in(servers, rate, service)
    assert statistics.mean(seen) == pytest.approx(mean, rel=0.05)
    assert use == pytest.approx(rate / servers, rel=0.03)


def test_jobs_are_served_in_their_order() -> None:
    simulation, seen = Simulation(), list[tuple[int, float]]()
    station = Station(simulation)
    for number in range(3):
        station.serve(1.0, partial(lambda number: seen.append((number, simulation.now)), number))
    assert station.waiting == 2
    simulation.run(10)
    assert seen == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_a_server_that_is_alone_acknowledges_after_its_commit() -> None:
    found = simulate(COSTS, Load(members=1, requests=100, files=0, uploads=1, seconds=30))
    assert min(found.uploads) == pytest.approx(COSTS.upload)
    assert min(found.reads) == pytest.approx(COSTS.page + 8e3 / 125e6)
    assert found.nginx == pytest.approx(100 * COSTS.page / 2, rel=0.1)
    assert found.reads_hold and found.uploads_hold and max(found.unanswered) <= 1


def test_an_upload_waits_for_all_replicas() -> None:
    found = simulate(COSTS, Load(members=11, requests=0, uploads=0.2, seconds=60))
    assert min(found.uploads) >= COSTS.upload + 10 * (COSTS.follow + COSTS.report) - 1e-9
    expected = 10 * COSTS.report + 0.2 * (COSTS.upload + 10 * (COSTS.follow + COSTS.report))
    assert found.python == pytest.approx(expected, rel=0.25)


def test_the_reports_of_many_replicas_are_all_that_a_primary_can_do() -> None:
    assert most_uploads(COSTS, 1) == pytest.approx(1 / COSTS.upload)
    assert most_uploads(COSTS, 1000) == 0
    assert not simulate(COSTS, Load(members=1000, requests=0, uploads=0, seconds=5)).uploads_hold


def test_a_line_that_is_too_narrow_is_seen() -> None:
    load = Load(members=1, requests=2000, files=1, seconds=2)  # 1 GB/s
    found = simulate(COSTS, load)
    assert not found.reads_hold and found.unanswered[0] > 0


def test_a_cdn_asks_for_each_page_once_in_its_time() -> None:
    load = Load(members=1)
    kept = through_cdn(load, pages=500, formats=3, places=10, seconds=30)
    assert (kept.requests, kept.files) == (500, 0)
    assert through_cdn(load, pages=500, formats=3, places=10, seconds=0).requests == 9000
    assert through_cdn(load, pages=10**6, formats=3, places=10, seconds=1).requests == 9000
