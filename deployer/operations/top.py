"""What happens on the server now, as the lines of one screen. Pure, but for asking the server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from deployer.deployment.session import Session
from deployer.diagnosis import size
from deployer.protocol import Activity, ActivityRequest, RecentRequest
from deployer.ui.table import table

OTHERWISE = "make its server anew: deployer up"
MOST_ROWS = 4
"""Indexes and upstreams on a screen, the busiest first."""

_Key = Literal["requests", "hits", "misses", "bytes_served", "bytes_saved"]


def activity(session: Session, most: int) -> Activity:
    """Ask the server. ``most``: requests that are listed."""
    assert session.deployment is not None  # noqa: S101 - there is no --url
    key = session.deployment.proof_key(otherwise=OTHERWISE)
    return session.api.activity(ActivityRequest(most=most), proof_key=key)


def frame(now: Activity, before: Activity | None, *, seconds: float, title: str, width: int, height: int) -> str:
    """One screen of at most ``width`` columns and ``height`` lines.

    ``before``: what was so ``seconds`` ago; None for the first one, which has no rates.
    """
    lines = [f"{title}  {now['at'][11:19]} UTC", *_summary(now, before, seconds), "", *_indexes(now)]
    if upstreams := _upstreams(now):
        lines += ["", *upstreams]
    room = height - len(lines) - 2
    if now["recent"] and room > 0:
        lines += ["", "latest requests", *map(_request, now["recent"][: room - 1])]
    return "\n".join(line[:width] for line in lines[:height])


def _summary(now: Activity, before: Activity | None, seconds: float) -> Iterable[str]:
    def total(of: Activity, key: _Key) -> int:
        return sum(counts[key] for counts in of["counted"]["indexes"].values())

    def rate(key: _Key) -> float | None:
        return None if before is None else max(0, total(now, key) - total(before, key)) / max(seconds, 0.001)

    hits, misses = total(now, "hits"), total(now, "misses")
    requests, served = rate("requests"), rate("bytes_served")
    share = f"{100 * hits / (hits + misses):.0f} % hits" if hits + misses else "no hits yet"
    yield "  ".join(
        (
            f"requests {total(now, 'requests')}" + ("" if requests is None else f" ({requests:.1f}/s)"),
            share,
            f"served {size(total(now, 'bytes_served'))}" + ("" if served is None else f" ({size(served)}/s)"),
            f"saved {size(total(now, 'bytes_saved'))}",
        )
    )
    threads = now["threads"]
    yield f"threads  {threads['busy']} of {threads['total']} busy, {threads['queued']} requests wait for one"


def _indexes(now: Activity) -> Sequence[str]:
    busiest = sorted(now["counted"]["indexes"].items(), key=lambda item: -item[1]["requests"])[:MOST_ROWS]
    rows = [
        (name[:28], str(of["requests"]), str(of["hits"]), str(of["misses"]), size(of["bytes_served"]))
        for name, of in busiest
    ]
    return table(("index", "requests", "hits", "misses", "served"), rows).splitlines() if rows else ["no requests yet"]


def _upstreams(now: Activity) -> Sequence[str]:
    counted = now["counted"]["upstreams"]
    busiest = sorted(now["upstreams"].items(), key=lambda item: (-item[1]["asking"], item[0]))[:MOST_ROWS]
    rows = []
    for origin, of in busiest:
        counts = counted.get(origin) or {"requests": 0, "failures": 0, "bytes": 0, "slowest": 0.0}
        numbers = (f"{counts['requests']:.0f}", f"{counts['failures']:.0f}", size(counts["bytes"]))
        rows.append((origin[:30], of["state"], str(of["asking"]), *numbers, f"{counts['slowest']:.2f} s"))
    head = ("upstream", "state", "asking", "requests", "failed", "received", "slowest")
    return table(head, rows).splitlines() if rows else []


def _request(one: RecentRequest) -> str:
    kept = {True: "hit", False: "miss", None: "-"}[one["hit"]]
    what = f"{one['time'][11:19]}  {one['status']}  {kept:4}  {one['seconds']:6.2f} s  {size(one['bytes']):>7}"
    return f"{what}  {one['method']} {one['path']}"
