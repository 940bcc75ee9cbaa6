"""How long requests took, by what was asked for and by where the answer came from. Of this run: counters of Prometheus
may begin at zero."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

from deployer.server.histogram import Histogram
from deployer.server.nginx.statistics import is_hit, kind_of

FAILED = 499
"""Status from which a request does not count as served: 499 is a client that went away."""


def source_of(line: Mapping[str, Any]) -> str:
    """``nginx`` and ``store``: a stored page or file, from nginx or from the server. ``new``: it was fetched or made.
    ``devpi``: anything else."""
    if line["from"] in ("file", "page"):
        return "nginx"
    return {True: "store", False: "new", None: "devpi"}[is_hit(line)]


class Latency:
    """A listener of the access log (:class:`deployer.server.nginx.statistics.Listener`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[tuple[str, str], Histogram] = {}
        self._answers: Counter[tuple[str, str]] = Counter()

    def line(self, line: dict[str, Any]) -> None:
        """Count one request. Raises ValueError, KeyError and TypeError for an invalid line."""
        kind, source = kind_of(line), source_of(line)
        status, seconds = int(line["status"]), float(line["seconds"])
        with self._lock:
            self._answers[kind, str(status)] += 1
            if status < FAILED:
                self._seconds.setdefault((kind, source), Histogram()).observe(seconds)

    def tick(self) -> None:
        """Nothing is written."""

    @property
    def seconds(self) -> Mapping[tuple[str, ...], Histogram]:
        """By kind and source."""
        with self._lock:
            return {key: found.copy() for key, found in sorted(self._seconds.items())}

    @property
    def answers(self) -> Mapping[tuple[str, ...], int]:
        """By kind and status."""
        with self._lock:
            return dict(sorted(self._answers.items()))
