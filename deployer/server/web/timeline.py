"""Plots of what happened, from the hours of the history. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from deployer.protocol import HistoryHour, HistoryUpstream
from deployer.server.web import words
from deployer.server.web.plot import Plot, Series, over_time

HOUR, DAY = 3600, 86400
SPANS: Mapping[int, int] = {1: HOUR, 7: 6 * HOUR, 90: DAY}
"""Days that a plot shows, and the seconds of one of its points."""
UPSTREAMS = 3
"""Upstreams with a line of their own: those that were asked most."""


@dataclass
class Bucket:
    """The sums of some hours."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    saved: int = 0
    fetched: int = 0
    upstreams: dict[str, list[HistoryUpstream]] = field(default_factory=dict)

    def add(self, hour: HistoryHour) -> None:
        self.hits += hour["hits"]
        self.misses += hour["misses"]
        self.errors += hour["errors"]
        self.saved += hour["bytes_saved"]
        for origin, counts in hour["upstreams"].items():
            self.fetched += counts["bytes"]
            self.upstreams.setdefault(origin, []).append(counts)

    def latency(self, origin: str) -> float | None:
        """Seconds until an answer of an upstream began, on average; None without one."""
        found = self.upstreams.get(origin, ())
        answered = sum(one["answered"] for one in found)
        return sum(one["waited"] for one in found) / answered if answered else None

    def failures(self, origin: str) -> float:
        return float(sum(one["failures"] for one in self.upstreams.get(origin, ())))


def plots(hours: Iterable[HistoryHour], *, now: float, days: int) -> Sequence[Plot]:
    """What there is to see of the last ``days``, a key of :data:`SPANS`. ``now``: seconds since the epoch."""
    moments, buckets = sorted_in(hours, now=now, days=days)
    asked: Counter[str] = Counter()
    for bucket in buckets:
        for origin, counts in bucket.upstreams.items():
            asked[origin] += sum(one["requests"] for one in counts)
    most = [origin for origin, _ in asked.most_common(UPSTREAMS)]

    def drawn(key: str, title: str, lines: Mapping[str, Callable[[Bucket], float | None]], say: Words) -> Plot | None:
        series = [Series(label, [value(bucket) for bucket in buckets]) for label, value in lines.items()]
        return over_time(key, title, moments, series, say)

    found = (
        drawn(
            "requests",
            "Pages and files",
            {
                "from here": lambda one: one.hits,
                "from upstreams": lambda one: one.misses,
                "errors": lambda one: one.errors,
            },
            words.number,
        ),
        drawn(
            "bytes",
            "Bytes",
            {"not downloaded again": lambda one: one.saved, "fetched from upstreams": lambda one: one.fetched},
            words.size,
        ),
        drawn("latency", "Answer time of upstreams", {_host(one): _latency(one) for one in most}, words.seconds),
        drawn("failures", "Failed requests to upstreams", {_host(one): _failures(one) for one in most}, words.number),
    )
    return [one for one in found if one is not None]


Words = Callable[[float], str]


def _latency(origin: str) -> Callable[[Bucket], float | None]:
    return lambda bucket: bucket.latency(origin)


def _failures(origin: str) -> Callable[[Bucket], float | None]:
    return lambda bucket: bucket.failures(origin)


def _host(origin: str) -> str:
    return urlsplit(origin).netloc or origin


def sorted_in(hours: Iterable[HistoryHour], *, now: float, days: int) -> tuple[list[float], list[Bucket]]:
    """The hours of the last ``days`` in steps; an hour that is missing had no requests."""
    step = SPANS[days]
    last = int(now) // step
    first = last - days * DAY // step
    buckets = [Bucket() for _ in range(first, last + 1)]
    for hour in hours:
        number = int(datetime.fromisoformat(hour["hour"]).timestamp()) // step - first
        if 0 <= number < len(buckets):
            buckets[number].add(hour)
    return [float(number * step) for number in range(first, last + 1)], buckets
