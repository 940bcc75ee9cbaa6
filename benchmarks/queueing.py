"""A discrete-event simulation of queues: stations with some servers, first come, first served. Pure Python.

Checked against known results of queueing theory (``tests/unit/test_queueing.py``).
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Simulation:
    """``now``: seconds since the beginning."""

    now: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        """Have ``event`` happen so many seconds from now."""
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def run(self, until: float) -> None:
        """Let happen what happens before ``until``."""
        while self._events and self._events[0][0] < until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = until


@dataclass
class Station:
    """``servers``: how many jobs are served at a time. ``worked``: seconds of service that were begun."""

    simulation: Simulation
    servers: int = 1
    worked: float = 0.0
    _busy: int = 0
    _waiting: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)

    def serve(self, seconds: float, then: Callable[[], None]) -> None:
        """Serve a job of so many seconds once it is its turn; ``then`` is called at its end."""
        if self._busy < self.servers:
            self._begin(seconds, then)
        else:
            self._waiting.append((seconds, then))

    def _begin(self, seconds: float, then: Callable[[], None]) -> None:
        self._busy += 1
        self.worked += seconds

        def end() -> None:
            self._busy -= 1
            if self._waiting:
                self._begin(*self._waiting.popleft())
            then()

        self.simulation.after(seconds, end)

    @property
    def waiting(self) -> int:
        """Jobs that no server has begun."""
        return len(self._waiting)

    def use(self) -> float:
        """The part of the time in which the servers were busy; a job that has just begun counts as a whole."""
        return self.worked / (self.servers * self.simulation.now)
