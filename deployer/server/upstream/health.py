"""How each upstream does: who waits for it, when it last gave a sign of life, and whether it is asked at all."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HOLD = 5.0
"""Seconds for which an upstream that failed is not asked again; then one request tries it."""
LONGEST_HOLD = 60.0
"""Seconds that an upstream may ask us to stay away (``Retry-After``)."""
QUIET = 2.0
"""Seconds without any sign of life, while somebody waits, after which nobody else is to wait for long."""
_REMEMBERED = 10_000


def origin_of(url: str) -> str:
    """Scheme, host and port of an address, without credentials."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


@dataclass
class Upstream:
    """One origin. All times are seconds of ``clock``, which never jumps."""

    origin: str
    clock: Callable[[], float] = time.monotonic
    requests: int = 0
    failures: int = 0
    bytes_received: int = 0
    slowest: float = 0.0  # seconds to the beginning of an answer
    _asking: dict[int, float] = field(default_factory=dict)
    _sign: float = float("-inf")
    _closed_until: float = float("-inf")
    _probe: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def down(self) -> bool:
        """Whether it failed and is not to be asked now."""
        with self._lock:
            return self._is_down(self.clock())

    def _is_down(self, now: float) -> bool:
        return now < self._closed_until or self._probe is not None

    @property
    def quiet(self) -> bool:
        """Whether somebody waits for it and nothing at all has come for a while."""
        with self._lock:
            if not self._asking:
                return False
            return self.clock() - max(self._sign, min(self._asking.values())) > QUIET

    @property
    def since_sign(self) -> float:
        """Seconds since it last gave a sign of life."""
        with self._lock:
            return self.clock() - self._sign

    @property
    def answers(self) -> bool:
        """Whether a request to it can be expected to be answered soon."""
        return not (self.down or self.quiet)

    def begin(self, request: int) -> bool:
        """Note that ``request`` is about to be sent; False when it must not be."""
        with self._lock:
            now = self.clock()
            if self._is_down(now):
                return False
            if self._closed_until > float("-inf"):  # it failed before: this one tries whether it is back
                self._probe = request
            self.requests += 1
            self._asking[request] = now
            return True

    def answered(self, request: int, *, stay_away: float = 0.0) -> None:
        """Note the beginning of an answer, and for how many seconds it asks us to stay away."""
        with self._lock:
            now = self.clock()
            self._sign = now
            began = self._asking.get(request, now)
            self.slowest = max(self.slowest, now - began)
            self._closed_until = now + min(stay_away, LONGEST_HOLD) if stay_away > 0 else float("-inf")
            if self._probe == request:
                self._probe = None

    def received(self, count: int) -> None:
        """Note a piece of a body."""
        with self._lock:
            self._sign = self.clock()
            self.bytes_received += count

    def failed(self, request: int) -> None:
        """Note that it can't be reached, or does not answer: it is not asked again for a while."""
        with self._lock:
            self.failures += 1
            self._asking.pop(request, None)
            self._closed_until = self.clock() + HOLD
            if self._probe == request:
                self._probe = None

    def left(self, request: int) -> None:
        """Note that nothing more of ``request`` will come: its body is whole, or nobody wants the rest."""
        with self._lock:
            self._asking.pop(request, None)
            if self._probe == request:
                self._probe = None


class Upstreams:
    """All of them, by origin, and which pages were asked for when."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, Upstream] = {}
        self._asked: OrderedDict[str, float] = OrderedDict()
        self._forgotten = float("-inf")
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

    def ask(self, url: str) -> None:
        """Note that ``url`` is asked for now."""
        with self._lock:
            self._asked[url] = self._clock()
            self._asked.move_to_end(url)
            if len(self._asked) > _REMEMBERED:
                _, self._forgotten = self._asked.popitem(last=False)

    def asked_since(self, url: str, moment: float) -> bool:
        """Whether ``url`` was asked for since ``moment``; True also when that is not known any more."""
        with self._lock:
            return self._asked.get(url, self._forgotten) >= moment
