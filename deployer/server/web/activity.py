"""``/+web/activity``: what the server does and did."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deployer.protocol import Activity, RecentRequest
from deployer.server.mirrors.indexes import Mirror
from deployer.server.upstream.health import origin_of
from deployer.server.web import catalog, plot, stock, timeline, words
from deployer.server.web.routes import Route
from deployer.server.web.site import Shown, Visit, path

if TYPE_CHECKING:
    from deployer.server.web.tween import Web

PROJECTS = 12
"""Projects in the plot of the disk."""
REQUESTS = 25
_OURS = ("/+web/", "/+deployer", "/+api", "/+status")
_STATES = {"up": "answers", "quiet": "is slow", "down": "does not answer"}


@dataclass(frozen=True)
class Health:
    """An upstream. ``state``: how it does now, in a few words; ``good``: whether it answers."""

    host: str
    state: str
    good: bool
    requests: int
    failures: int
    bytes: int
    slowest: float


@dataclass(frozen=True)
class Request:
    """A request of a client. Who sent it is left out: anybody may look."""

    time: str
    what: str
    status: int
    answer: str
    size: str
    seconds: str


def activity(web: Web, visit: Visit, route: Route) -> Shown:
    """The page; of it, htmx gets the last requests alone."""
    now = seen(web.activity.now(200), web.indexes.all(configured=web.store.configured), web.hidden(visit.request))
    days = visit.number("days", most=90)
    days = days if days in timeline.SPANS else 1
    began = time.time() - days * timeline.DAY
    model: Mapping[str, Any] = {
        "recent": recent(now["recent"]),
        "threads": now["threads"],
        "indexes": sorted(now["counted"]["indexes"].items()),
        "since": now["counted"]["since"][:10],
        "upstreams": upstreams(now),
        "plots": () if visit.part else timeline.plots(web.history.since(began), now=time.time(), days=days),
        "days": days,
        "spans": tuple(timeline.SPANS),
        "disk": () if visit.part else disk(web, visit),
    }
    return Shown("activity.html", model, block="live")


def seen(now: Activity, mirrors: Mapping[str, Mirror], hidden: frozenset[str]) -> Activity:
    """The activity without that of ``hidden`` indexes: their requests, their counts, and upstreams of them alone."""
    if not hidden:
        return now
    places = {
        hide: {origin_of(one.url) for name, one in mirrors.items() if (name in hidden) is hide}
        for hide in (True, False)
    }
    secret = places[True] - places[False]
    counted = now["counted"]
    return now | {
        "recent": [one for one in now["recent"] if "/".join(one["path"].split("/")[1:3]) not in hidden],
        "counted": counted
        | {
            "indexes": {name: one for name, one in counted["indexes"].items() if name not in hidden},
            "upstreams": {name: one for name, one in counted["upstreams"].items() if name not in secret},
        },
        "upstreams": {name: one for name, one in now["upstreams"].items() if name not in secret},
    }


def recent(found: Sequence[RecentRequest]) -> Sequence[Request]:
    """The last requests for packages, the newest first."""
    return [
        Request(
            one["time"][11:19],
            f"{one['method'][:10]} {one['path'][:200]}",
            one["status"],
            {True: "from here", False: "from an upstream", None: ""}[one["hit"]],
            words.size(one["bytes"]),
            words.seconds(one["seconds"]),
        )
        for one in found
        if not one["path"].startswith(_OURS)
    ][:REQUESTS]


def upstreams(now: Activity) -> Sequence[Health]:
    """Every upstream that was asked since counting began, or is known now."""
    found = []
    for origin in sorted({*now["counted"]["upstreams"], *now["upstreams"]}):
        one, of = now["upstreams"].get(origin), now["counted"]["upstreams"].get(origin)
        found.append(
            Health(
                urlsplit(origin).netloc or origin,
                "was not asked since the start" if one is None else _STATES.get(one["state"], one["state"]),
                one is None or one["state"] == "up",
                int(of["requests"]) if of else 0,
                int(of["failures"]) if of else 0,
                int(of["bytes"]) if of else 0,
                of["slowest"] if of else 0.0,
            )
        )
    return found


def disk(web: Web, visit: Visit) -> Sequence[plot.Bar]:
    """The projects that take most of the disk."""
    hidden = web.hidden(visit.request)
    largest = stock.largest(web.inventory, PROJECTS)
    if hidden:
        names = {found.name for found in catalog.visible(web, hidden).projects()}
        largest = [one for one in largest if one.project in names]
    rows = [(one.project, f"{visit.up}+web/search?q={path(one.project)}", float(one.bytes)) for one in largest]
    return plot.bars(rows, words.size)
