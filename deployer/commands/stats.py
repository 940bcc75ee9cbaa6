"""``deployer stats``: what was here already, what had to be fetched, and from whom."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from deployer.commands import Located
from deployer.protocol import Counted
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    pass


def run(options: Options, ui: UI) -> Result:
    """Show hits, misses and bytes of each index and upstream.

    Counted from the access log, up to a second ago, over restarts; of a stopped server, too.
    """
    from deployer.deployment.find import require
    from deployer.errors import ConflictError

    deployment = require(options.name, engine=options.engine)
    kept = deployment.server_dir.statistics() if deployment.server_dir else None
    try:
        told: Counted = json.loads(kept or "")
        data = Counted(since=told["since"], indexes=told["indexes"], upstreams=told["upstreams"])
        text = _text(data)
    except (ValueError, KeyError, TypeError):
        raise ConflictError(
            f"{deployment.name} has counted nothing that can be read",
            hint="its data directory must be readable for you, and its server ours; deployer doctor",
        ) from None
    if not data["indexes"]:
        ui.warn("no request counted yet: counts lag by a second or two, and need nginx in front (deployer doctor)")
    return Result(data={"name": deployment.name, **data}, text=text)


def _text(data: Counted) -> str:
    from deployer.diagnosis import size

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
    parts = [f"since {data['since']}"]
    if indexes:
        parts.append(_table(("index", "requests", "hits", "misses", "served", "saved"), indexes))
    if upstreams:
        parts.append(_table(("upstream", "requests", "failures", "received", "slowest"), upstreams))
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )
