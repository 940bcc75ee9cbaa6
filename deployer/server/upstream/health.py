"""The health of each upstream: requests under way, time of the last byte, and a circuit breaker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deployer.server.histogram import Histogram

HOLD = 5.0
"""Seconds for which a failed upstream is not asked; then one request tries it (half-open)."""
LONGEST_HOLD = 60.0
"""Most seconds of an upstream's ``Retry-After`` that are obeyed."""
QUIET = 2.0
"""Seconds without a byte, while a request is under way, after which an upstream counts as quiet."""


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, without credentials."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


@dataclass
class Upstream:
    """One origin. Times are seconds of ``clock``, which is monotonic."""

    origin: str
    clock: Callable[[], float] = time.monotonic
    requests: int = 0
    failures: int = 0
    bytes_received: int = 0
    slowest: float = 0.0  # seconds until an answer began
    answered_requests: int = 0
    waited: float = 0.0  # seconds until the answers to those began, in all
    _seconds: Histogram = field(default_factory=Histogram)
    _slowest_since: float = 0.0
    _asking: dict[int, float] = field(default_factory=dict)
    _last_byte: float = float("-inf")
    _closed_until: float = float("-inf")
    _probe: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def down(self) -> bool:
        """Whether it failed and must not be asked now."""
        with self._lock:
            return self._is_down(self.clock())

    def _is_down(self, now: float) -> bool:
        return now < self._closed_until or self._probe is not None

    @property
    def failing(self) -> bool:
        """Whether its last request failed, or was answered with ``Retry-After``; also while nobody asks it."""
        with self._lock:
            return self._closed_until > float("-inf")

    @property
    def seconds(self) -> Histogram:
        """Seconds until its answers began."""
        with self._lock:
            return self._seconds.copy()

    @property
    def quiet(self) -> bool:
        """Whether a request is under way and no byte has come for QUIET seconds."""
        with self._lock:
            if not self._asking:
                return False
            return self.clock() - max(self._last_byte, min(self._asking.values())) > QUIET

    @property
    def since_last_byte(self) -> float:
        """Seconds since its last byte."""
        with self._lock:
            return self.clock() - self._last_byte

    @property
    def answers(self) -> bool:
        """Whether a request can be expected to be answered soon."""
        return not (self.down or self.quiet)

    def begin(self, request: int) -> bool:
        """Record that ``request`` is about to be sent; False when it must not be sent."""
        with self._lock:
            now = self.clock()
            if self._is_down(now):
                return False
            if self._closed_until > float("-inf"):  # half-open: this request tries the upstream
                self._probe = request
            self.requests += 1
            self._asking[request] = now
            return True

    def answered(self, request: int, *, retry_after: float = 0.0) -> None:
        """Record the beginning of an answer, and the seconds of its ``Retry-After``."""
        with self._lock:
            now = self.clock()
            self._last_byte = now
            began = self._asking.get(request, now)
            self.slowest = max(self.slowest, now - began)
            self._slowest_since = max(self._slowest_since, now - began)
            self.answered_requests += 1
            self.waited += now - began
            self._seconds.observe(now - began)
            self._closed_until = now + min(retry_after, LONGEST_HOLD) if retry_after > 0 else float("-inf")
            if self._probe == request:
                self._probe = None

    def take_slowest(self) -> float:
        """The longest time until an answer began since the last call, in seconds."""
        with self._lock:
            found, self._slowest_since = self._slowest_since, 0.0
            return found

    @property
    def asking(self) -> int:
        """Requests under way."""
        with self._lock:
            return len(self._asking)

    def received(self, count: int) -> None:
        """Record ``count`` bytes of a body."""
        with self._lock:
            self._last_byte = self.clock()
            self.bytes_received += count

    def failed(self, request: int) -> None:
        """Record that it could not be reached or did not answer: it is not asked for HOLD seconds."""
        with self._lock:
            self.failures += 1
            self._asking.pop(request, None)
            self._closed_until = self.clock() + HOLD
            if self._probe == request:
                self._probe = None

    def ended(self, request: int) -> None:
        """Record the end of ``request``: its body is complete, or was given up."""
        with self._lock:
            self._asking.pop(request, None)
            if self._probe == request:
                self._probe = None


class Upstreams:
    """All upstreams by origin."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, Upstream] = {}
        self._lock = threading.Lock()

    def of(self, url: str) -> Upstream:
        """The upstream that serves ``url``."""
        origin = origin_of(url)
        with self._lock:
            return self._known.setdefault(origin, Upstream(origin, self._clock))

    @property
    def known(self) -> tuple[Upstream, ...]:
        with self._lock:
            return tuple(self._known.values())
