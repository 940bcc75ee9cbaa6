"""What happened on a server hour by hour, read from its data directory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from deployer.deployment.find import Deployment
from deployer.errors import ConflictError
from deployer.protocol import HistoryFile, HistoryHour, HistoryUpstream, parsed
from deployer.typed import built


def read(deployment: Deployment, first: datetime) -> list[HistoryHour]:
    """The hours since ``first``, the one that it is in included, the oldest first. Raises ConflictError."""
    text = deployment.server_dir.history() if deployment.server_dir else None
    if not text:
        return []
    try:
        found = built(HistoryFile, parsed(text, fraction=float))["hours"]
        begin = first.replace(minute=0, second=0, microsecond=0)
        return [hour for hour in found if datetime.fromisoformat(hour["hour"]) >= begin]
    except (ValueError, TypeError):
        raise ConflictError(f"the history of {deployment.name} can't be read", hint="deployer doctor") from None


def summed(hours: Sequence[HistoryHour]) -> tuple[HistoryHour, dict[str, HistoryUpstream]]:
    """All of them as one; and the upstreams."""
    total = HistoryHour(hour="", requests=0, hits=0, misses=0, errors=0, bytes_served=0, bytes_saved=0, upstreams={})
    upstreams: dict[str, HistoryUpstream] = {}
    for hour in hours:
        for key in ("requests", "hits", "misses", "errors", "bytes_served", "bytes_saved"):
            total[key] += hour[key]
        for origin, of in hour["upstreams"].items():
            one = upstreams.setdefault(
                origin, HistoryUpstream(requests=0, failures=0, bytes=0, answered=0, waited=0.0, slowest=0.0)
            )
            for number in ("requests", "failures", "bytes", "answered"):
                one[number] += of[number]
            one["waited"] += of["waited"]
            one["slowest"] = max(one["slowest"], of["slowest"])
    return total, upstreams
