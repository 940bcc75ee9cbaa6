"""A bulkhead: no upstream can occupy all threads of the server, however many clients wait for it."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from deployer.server.upstream.health import Upstream

HEALTHY = 0.5
"""Seconds after its last byte for which an upstream counts as healthy."""

MOST = 4
"""Limit of the thread pool, as a multiple of its usual size."""


class Permit:
    """The permission of one request to wait for some upstreams."""

    def __init__(self, bulkhead: Bulkhead, upstreams: Sequence[Upstream]) -> None:
        self._bulkhead = bulkhead
        self.upstreams = {upstream.origin: upstream for upstream in upstreams}
        self.held = True

    @property
    def valid(self) -> bool:
        """Whether the request may go on waiting. Once False, the permit is released."""
        return self._bulkhead.check(self)


class Bulkhead:
    """Limits on the ``threads`` of the server that may wait for one upstream.

    - Half of the threads for a quiet upstream; as many requests may be sent to it at once.
    - Four fifths for an upstream that has not answered yet, when many clients begin at the same time.
    - Half of the threads, for all upstreams together, for requests that can't be let go once devpi works on them.
    - All threads for a slow upstream that keeps sending, as for a large file. When more than half of the threads wait,
      ``grow`` is called with the number of threads that leaves enough for others, at most MOST times ``threads``.
    """

    def __init__(self, threads: int, grow: Callable[[int], None] = lambda threads: None) -> None:
        self._threads = threads
        self._grow = grow
        self._permits = 0
        self._share = max(1, threads // 2)
        self._most = max(1, threads * 4 // 5)
        self._lock = threading.Lock()
        self._held = 0
        self._waiting: Counter[str] = Counter()
        self._asking: dict[str, threading.BoundedSemaphore] = {}

    @contextlib.contextmanager
    def waiting(self, upstreams: Sequence[Upstream]) -> Iterator[Permit]:
        """A permit to wait for some upstreams, for as long as it is valid."""
        permit = Permit(self, upstreams)
        with self._lock:
            self._waiting.update(permit.upstreams.keys())
            self._permits += 1
            if self._permits > self._share:
                self._grow(min(self._threads + self._permits - self._share, MOST * self._threads))
        try:
            yield permit
        finally:
            with self._lock:
                self._permits -= 1
                self._release(permit)

    @contextlib.contextmanager
    def holding(self, upstreams: Sequence[Upstream]) -> Iterator[bool]:
        """Whether a request may begin in which devpi may ask these upstreams, in its own thread, until it is done."""
        with self.waiting(upstreams) as permit:
            valid = permit.valid
            with self._lock:
                admitted = valid and self._held < self._share
                self._held += admitted
            try:
                yield admitted
            finally:
                with self._lock:
                    self._held -= admitted

    def check(self, permit: Permit) -> bool:
        """Whether ``permit`` is still valid; it is released when too many wait for one of its upstreams."""
        with self._lock:
            if any(self._is_full(origin, upstream) for origin, upstream in permit.upstreams.items()):
                self._release(permit)
            return permit.held

    def _is_full(self, origin: str, upstream: Upstream) -> bool:
        waiting = self._waiting[origin]
        if self._permits > (MOST - 1) * self._threads:  # many upstreams, each with few
            return upstream.quiet
        if waiting > self._most:
            return upstream.since_last_byte > HEALTHY
        return waiting > self._share and upstream.quiet

    def _release(self, permit: Permit) -> None:
        if permit.held:
            permit.held = False
            self._waiting.subtract(permit.upstreams.keys())

    @contextlib.contextmanager
    def asking(self, upstreams: Sequence[Upstream]) -> Iterator[None]:
        """Send requests to these upstreams; blocks while too many others do."""
        with self._lock:
            turns = [
                self._asking.setdefault(origin, threading.BoundedSemaphore(self._share))
                for origin in sorted({upstream.origin for upstream in upstreams})  # in one order: no deadlock
            ]
        with contextlib.ExitStack() as stack:
            for turn in turns:
                stack.enter_context(turn)
            yield
