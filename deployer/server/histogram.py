"""A histogram of seconds, in the buckets that Prometheus gets."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper limits of the buckets, in seconds; nginx measures milliseconds. One more bucket takes what is longer."""


@dataclass
class Histogram:
    """Counts of durations. Its owner has the lock. ``total``: seconds, in all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Histogram:
        return Histogram(list(self.counts), self.total)

    @property
    def cumulative(self) -> Iterator[tuple[float, int]]:
        """Each limit, the last one infinite, and how many durations are not longer."""
        number = 0
        for limit, count in zip((*BOUNDS, float("inf")), self.counts, strict=True):
            number += count
            yield limit, number
