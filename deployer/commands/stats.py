"""``deployer stats``: cache hits, misses and bytes by index and upstream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Located
from deployer.protocol import Counted, Missed
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    since: Annotated[
        str,
        Option("--since", metavar="TIME", help="RFC 3339 time, or a duration such as 90d; default: all counts."),
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Show cache hits, misses and bytes by index and upstream.

    It also shows what clients asked for in vain while the server was offline. The counts come from the access log, lag
    by about a second, and survive restarts and a stop. With --since they are those of the hours since then; the server
    keeps ninety days of them, and they lag by a minute.
    """
    from deployer.deployment.find import require
    from deployer.errors import ConflictError
    from deployer.protocol import parsed
    from deployer.typed import built

    deployment = require(options.name, engine=options.engine)
    if options.since:
        return _since(deployment, options.since)
    kept = deployment.server_dir.statistics() if deployment.server_dir else None
    try:
        counts = built(Counted, parsed(kept or ""))
        counts.pop("read", None)
    except ValueError:
        raise ConflictError(
            f"the statistics of {deployment.name} can't be read",
            hint="deployer doctor",
        ) from None
    if not counts["indexes"]:
        ui.warn("requests are not counted yet: counts lag by two seconds and need nginx (see deployer doctor)")
    front = (deployment.server_dir.front() or "").strip() if deployment.server_dir else ""
    missed = _missed(deployment)
    data = {"name": deployment.name, "front": front or None, **counts, "missed": missed}
    return Result(data=data, text=_text(counts, front, missed))


def _since(deployment: Deployment, span: str) -> Result:
    from deployer.diagnosis import size
    from deployer.engines.timestamps import moment
    from deployer.operations.history import read, summed
    from deployer.ui.table import table

    first = moment(span, "--since")
    hours = read(deployment, first)
    total, upstreams = summed(hours)
    since = hours[0]["hour"] if hours else first.isoformat(timespec="minutes")
    numbers = (str(total["requests"]), str(total["hits"]), str(total["misses"]), str(total["errors"]))
    rows = [(*numbers, size(total["bytes_served"]), size(total["bytes_saved"]))]
    parts = [f"since {since}", table(("requests", "hits", "misses", "errors", "served", "saved"), rows)]
    if upstreams:
        shown = [
            (
                origin,
                str(of["requests"]),
                str(of["failures"]),
                size(of["bytes"]),
                f"{mean:.2f} s",
                f"{of['slowest']:.2f} s",
            )
            for origin, of in sorted(upstreams.items())
            for mean in [of["waited"] / of["answered"] if of["answered"] else 0.0]
        ]
        parts.append(table(("upstream", "requests", "failures", "received", "mean", "slowest"), shown))
    data = {"name": deployment.name, "since": since, "hours": hours}
    return Result(data=data, text="\n\n".join(parts))


def _missed(deployment: Deployment) -> Missed | None:
    from deployer.protocol import parsed
    from deployer.typed import built

    kept = deployment.server_dir.missed() if deployment.server_dir else None
    try:
        return built(Missed, parsed(kept)) if kept else None
    except ValueError:
        return None


def _text(data: Counted, front: str, missed: Missed | None) -> str:
    from deployer.diagnosis import size
    from deployer.ui.table import table

    indexes = [
        (
            name,
            f"{of['requests']}",
            f"{of['hits']}",
            f"{of['misses']}",
            size(of["bytes_served"]),
            size(of["bytes_saved"]),
        )
        for name, of in data["indexes"].items()
    ]
    upstreams = [
        (origin, f"{of['requests']:.0f}", f"{of['failures']:.0f}", size(of["bytes"]), f"{of['slowest']:.2f} s")
        for origin, of in sorted(data["upstreams"].items(), key=lambda item: -item[1]["slowest"])
    ]
    parts = [f"since {data['since']}" + (f"; clients are answered by {front}" if front else "")]
    if indexes:
        parts.append(table(("index", "requests", "hits", "misses", "served", "saved"), indexes))
    refused = [
        (name, rule, f"{number}")
        for name, of in data["indexes"].items()
        for rule, number in of.get("refused", {}).items()
    ]
    if refused:
        parts.append(table(("mirror", "rule", "refused"), refused))
    if upstreams:
        parts.append(table(("upstream", "requests", "failures", "received", "slowest"), upstreams))
    rows = [] if missed is None else _missed_rows(missed)
    if missed is not None and rows:
        parts.append(f"asked for in vain while offline, since {missed['since']} (fetch it: deployer warm --asked)")
        parts.append(table(("project or file", "requests"), rows))
    return "\n\n".join(parts)


MOST_ROWS = 20


def _missed_rows(missed: Missed) -> list[tuple[str, str]]:
    """The most wanted first; ``--json`` has all of them."""
    counts: dict[str, int] = {}
    for of in missed["indexes"].values():
        for name, number in (*of["projects"].items(), *of["files"].items()):
            counts[name] = counts.get(name, 0) + number
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, str(number)) for name, number in ordered[:MOST_ROWS]]
    left = sum(number for _, number in ordered[MOST_ROWS:]) + missed["left_out"]
    return [*rows, *([("others", str(left))] if left else [])]
