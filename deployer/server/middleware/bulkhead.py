"""No upstream may take all of the server's threads: who may wait for one, and who is told to come back later."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from deployer.server.upstream.health import Upstream

UNKNOWN = 0.5
"""Seconds after its last sign of life for which an upstream is taken to be well."""

MOST = 4
"""Times its threads that a server may have while so many wait."""


class Place:
    """The place of one request among those that wait."""

    def __init__(self, bulkhead: Bulkhead, upstreams: Sequence[Upstream]) -> None:
        self._bulkhead = bulkhead
        self.upstreams = {upstream.origin: upstream for upstream in upstreams}
        self.held = True

    @property
    def may_stay(self) -> bool:
        """Whether to go on waiting. False means that the place is gone."""
        return self._bulkhead.keeps(self)


class Bulkhead:
    """Over the ``threads`` that the server has.

    Half of them may wait for an upstream that gives no sign of life, and so many may ask it at once. Most of them may
    wait for one of which nothing is known yet: when many begin at once, before its first answer. A slow one that goes
    on sending may keep all of them, for as long as a large file takes: where more than half wait, ``grow`` is told how
    many threads there have to be for the others, at most MOST times as many.
    """

    def __init__(self, threads: int, grow: Callable[[int], None] = lambda threads: None) -> None:
        self._threads = threads
        self._grow = grow
        self._in = 0
        self._share = max(1, threads // 2)
        self._most = max(1, threads * 4 // 5)
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._asking: dict[str, threading.BoundedSemaphore] = {}

    @contextlib.contextmanager
    def waiting(self, upstreams: Sequence[Upstream]) -> Iterator[Place]:
        """Wait for some upstreams, as long as the place says so."""
        place = Place(self, upstreams)
        with self._lock:
            self._waiting.update(place.upstreams.keys())
            self._in += 1
            if self._in > self._share:
                self._grow(min(self._threads + self._in - self._share, MOST * self._threads))
        try:
            yield place
        finally:
            with self._lock:
                self._in -= 1
                self._leave(place)

    def keeps(self, place: Place) -> bool:
        """Whether ``place`` is kept: while an upstream is quiet, only a share of those who wait for it may stay."""
        with self._lock:
            if any(self._is_full(origin, upstream) for origin, upstream in place.upstreams.items()):
                self._leave(place)
            return place.held

    def _is_full(self, origin: str, upstream: Upstream) -> bool:
        waiting = self._waiting[origin]
        if waiting > self._most:
            return upstream.since_sign > UNKNOWN
        return waiting > self._share and upstream.quiet

    def _leave(self, place: Place) -> None:
        if place.held:
            place.held = False
            self._waiting.subtract(place.upstreams.keys())

    @contextlib.contextmanager
    def asking(self, upstreams: Sequence[Upstream]) -> Iterator[None]:
        """Have devpi ask these upstreams; waits for a turn."""
        with self._lock:
            turns = [
                self._asking.setdefault(origin, threading.BoundedSemaphore(self._share))
                for origin in sorted({upstream.origin for upstream in upstreams})  # in one order: no deadlock
            ]
        with contextlib.ExitStack() as stack:
            for turn in turns:
                stack.enter_context(turn)
            yield
