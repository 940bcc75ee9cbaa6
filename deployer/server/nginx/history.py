"""What happened hour by hour: requests, hits, bytes, and how upstreams did, for ninety days.

``<serverdir>/.deployer/history.json``: one object for each hour in which anything happened, as in
:class:`deployer.protocol.HistoryFile`. The hours before the current one change no more. The file is written once a
minute, so a kill costs a minute. It has at most :data:`HOURS` hours, and :data:`MOST_UPSTREAMS` upstreams in each.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from deployer.protocol import HistoryHour, HistoryUpstream, parsed
from deployer.server.nginx.statistics import is_hit
from deployer.server.secret_files import write_private

HOURS = 90 * 24
MOST_UPSTREAMS = 20
EVERY = 60.0
"""Seconds between two writes."""
HOUR = 3600


class Seen(Protocol):
    """An upstream, counted since the start of this process (:mod:`deployer.server.upstream.health`)."""

    origin: str
    requests: int
    failures: int
    bytes_received: int
    answered_requests: int
    waited: float

    def take_slowest(self) -> float: ...


NAME = "deployer-history"
"""Its name as a devpi plugin."""


class History:
    """A listener of the access log. ``upstreams``: those that are known now."""

    def __init__(
        self,
        path: Path,
        *,
        upstreams: Callable[[], Iterable[Seen]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path, self.upstreams, self._clock = path, upstreams, clock
        self._lock = threading.Lock()
        self._hours: dict[int, HistoryHour] = {}
        self._before: dict[str, tuple[int, int, int, int, float]] = {}
        self._written = time.monotonic()
        self._changed = False
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._hours = {_number(one["hour"]): one for one in parsed(path.read_bytes())["hours"]}

    def line(self, line: dict[str, Any]) -> None:
        """Count one request. Raises ValueError, KeyError and TypeError for an invalid line."""
        at = int(datetime.fromisoformat(str(line["time"])).timestamp()) // HOUR
        hit, sent = is_hit(line), int(line["bytes"])
        with self._lock:
            hour = self._hour(at)
            hour["requests"] += 1
            hour["bytes_served"] += sent
            hour["errors"] += int(line["status"]) >= 500
            if hit is not None:
                hour["hits" if hit else "misses"] += 1
                hour["bytes_saved"] += sent if hit else 0
            self._changed = True

    def _hour(self, at: int) -> HistoryHour:
        known = self._hours.get(at)
        if known is None:
            known = self._hours[at] = HistoryHour(
                hour=_iso(at), requests=0, hits=0, misses=0, errors=0, bytes_served=0, bytes_saved=0, upstreams={}
            )
            for old in sorted(self._hours)[:-HOURS]:
                del self._hours[old]
        return known

    def tick(self) -> None:
        """Count what upstreams did since the last tick, and write once a minute."""
        with self._lock:
            self._count_upstreams()
        if self._changed and time.monotonic() - self._written >= EVERY:
            self.write()

    def _count_upstreams(self) -> None:
        for upstream in self.upstreams():
            now = (
                upstream.requests,
                upstream.failures,
                upstream.bytes_received,
                upstream.answered_requests,
                upstream.waited,
            )
            before = self._before.get(upstream.origin, (0, 0, 0, 0, 0.0))
            if now == before:
                continue
            self._before[upstream.origin] = now
            of = self._hour(int(self._clock()) // HOUR)["upstreams"]
            if upstream.origin not in of and len(of) >= MOST_UPSTREAMS:
                continue
            counts = of.setdefault(
                upstream.origin, HistoryUpstream(requests=0, failures=0, bytes=0, answered=0, waited=0.0, slowest=0.0)
            )
            counts["requests"] += now[0] - before[0]
            counts["failures"] += now[1] - before[1]
            counts["bytes"] += now[2] - before[2]
            counts["answered"] += now[3] - before[3]
            counts["waited"] = round(counts["waited"] + now[4] - before[4], 3)
            counts["slowest"] = round(max(counts["slowest"], upstream.take_slowest()), 3)
            self._changed = True

    def write(self) -> None:
        """Write the file. Raises OSError."""
        with self._lock:
            text = json.dumps({"hours": [self._hours[at] for at in sorted(self._hours)]}, separators=(",", ":"))
            self._changed = False
        self._written = time.monotonic()
        write_private(self._path, text, durable=False)

    def since(self, moment: float = 0.0) -> list[HistoryHour]:
        """The hours since ``moment`` (seconds since the epoch), the oldest first; hours without requests are left
        out."""
        first = int(moment) // HOUR
        with self._lock:
            return [_copied(hour) for at, hour in sorted(self._hours.items()) if at >= first]


def _copied(hour: HistoryHour) -> HistoryHour:
    return {**hour, "upstreams": {origin: counts.copy() for origin, counts in hour["upstreams"].items()}}


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at * HOUR, UTC).isoformat(timespec="minutes")


def _number(hour: str) -> int:
    return int(datetime.fromisoformat(hour).timestamp()) // HOUR


def given(config: Any) -> History:
    """The history of this server. ``config``: devpi's."""
    found: History | None = config.pluginmanager.get_plugin(NAME)
    assert found is not None  # noqa: S101 - registered before
    return found
