"""``POST /+deployer/activity``: what happens now, for whoever can read the server directory; the latest requests."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from pyramid.response import Response

from deployer.protocol import (
    IDENTITY_ROUTE,
    Activity,
    ActivityRequest,
    Counted,
    QuotaNow,
    RecentRequest,
    ThreadsNow,
    UpstreamNow,
)
from deployer.server.challenge import INVALID, Challenge
from deployer.server.nginx.statistics import is_hit

NAME = "deployer-activity"
"""The name of :class:`Recent` as a devpi plugin."""
MOST = 500
"""Requests that are kept in memory."""


class Recent:
    """A listener of the access log that keeps its last lines."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: deque[RecentRequest] = deque(maxlen=MOST)

    def line(self, line: dict[str, Any]) -> None:
        """Keep one request, unless it is one of ours. Raises ValueError, KeyError and TypeError for an invalid line."""
        if str(line["path"]).startswith(IDENTITY_ROUTE):
            return
        kept = RecentRequest(
            time=str(line["time"]),
            client=str(line["client"]),
            method=str(line["method"]),
            path=str(line["path"])[:500],
            status=int(line["status"]),
            bytes=int(line["bytes"]),
            seconds=float(line["seconds"]),
            sent_by=str(line["from"]),
            hit=is_hit(line),
        )
        with self._lock:
            self._kept.append(kept)

    def tick(self) -> None:
        """Nothing is written."""

    def latest(self, most: int) -> list[RecentRequest]:
        """At most so many requests, the latest first."""
        with self._lock:
            return list(islice(reversed(self._kept), most))


def state_of(upstream: Any) -> UpstreamNow:
    """The state of a :class:`deployer.server.upstream.health.Upstream`."""
    state = "down" if upstream.down else "quiet" if upstream.quiet else "up"
    return UpstreamNow(state=state, asking=upstream.asking)


class ActivityView:
    """``counted``: the counts a moment ago. ``upstreams``: those that are known. ``threads``: their state.
    ``quotas``: what is used of them."""

    def __init__(
        self,
        challenge: Challenge,
        recent: Recent,
        *,
        counted: Callable[[], Counted],
        upstreams: Callable[[], Iterable[Any]],
        threads: Callable[[], ThreadsNow],
        quotas: Callable[[], Mapping[str, QuotaNow]],
    ) -> None:
        self._challenge, self._recent = challenge, recent
        self._counted, self._upstreams, self.threads, self.quotas = counted, upstreams, threads, quotas

    def __call__(self, request: Any) -> Any:
        try:
            wanted = ActivityRequest.parse(request.json_body)
        except (ValueError, RecursionError):
            wanted = None
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            return Response(json_body={"message": INVALID}, status=403)
        return Response(json_body=self.now(wanted.most))

    def now(self, most: int) -> Activity:
        """What happens now, with at most so many requests."""
        counted = self._counted()
        return Activity(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            counted=Counted(since=counted["since"], indexes=counted["indexes"], upstreams=counted["upstreams"]),
            upstreams={upstream.origin: state_of(upstream) for upstream in self._upstreams()},
            threads=self.threads(),
            recent=self._recent.latest(most),
            quotas=dict(self.quotas()),
        )


def given(config: Any) -> Recent:
    """The latest requests of this server. ``config``: devpi's."""
    found: Recent | None = config.pluginmanager.get_plugin(NAME)
    assert found is not None  # noqa: S101 - registered before
    return found
