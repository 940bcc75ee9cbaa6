"""``/+web/activity``: what the server does and did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from deployer.protocol import Counted
from deployer.server.nginx import statistics
from deployer.server.secret_files import Private
from deployer.server.web import plot, recent, stock, words
from deployer.server.web.routes import Route
from deployer.server.web.site import Shown, Visit, path

if TYPE_CHECKING:
    from deployer.server.web.tween import Web

PROJECTS = 12
"""Projects in the plot of the disk."""


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


def counted(web: Web) -> Counted | None:
    """What was counted a moment ago; None where nobody counts."""
    counter = web.xom.config.pluginmanager.get_plugin(statistics.NAME)
    found: Counted | None = None if counter is None else counter.latest
    return found


def activity(web: Web, visit: Visit, route: Route) -> Shown:
    """The page; of it, htmx gets the last requests alone."""
    known = counted(web)
    model: Mapping[str, Any] = {
        "recent": recent.requests(Private.of(web.serverdir).access_log),
        "indexes": sorted(known["indexes"].items()) if known else [],
        "since": known["since"][:10] if known else "",
        "upstreams": upstreams(web, known),
        "disk": disk(web, visit),
    }
    return Shown("activity.html", model, block="live")


def upstreams(web: Web, known: Counted | None) -> Sequence[Health]:
    """Every upstream that is configured, and those that were asked."""
    counts = dict(known["upstreams"]) if known else {}
    now = {
        one.origin: one for one in map(web.indexes.upstream, web.indexes.all(configured=web.store.configured).values())
    }
    found = []
    for origin in sorted({*counts, *now}):
        one, of = now.get(origin), counts.get(origin)
        state = "no mirror has it now" if one is None else _state(one)
        found.append(
            Health(
                urlsplit(origin).netloc or origin,
                state,
                one is not None and one.answers,
                int(of["requests"]) if of else 0,
                int(of["failures"]) if of else 0,
                int(of["bytes"]) if of else 0,
                of["slowest"] if of else 0.0,
            )
        )
    return found


def _state(upstream: Any) -> str:
    if upstream.down:
        return "does not answer"
    return "answers slowly" if upstream.quiet else "answers" if upstream.requests else "was not asked since the start"


def disk(web: Web, visit: Visit) -> Sequence[plot.Bar]:
    """The projects that take most of the disk."""
    largest = stock.largest(web.inventory, PROJECTS)
    rows = [(one.project, f"{visit.up}+web/search?q={path(one.project)}", float(one.bytes)) for one in largest]
    return plot.bars(rows, words.size)
