"""``deployer logs``: the log of the server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    follow: Annotated[bool, Option("--follow", "-f", help="Follow the log.")] = False
    since: Annotated[str, Option("--since", metavar="WHEN", help="RFC 3339 time, or a duration such as 10m.")] = ""
    lines: Annotated[int | None, Option("--lines", "-n", metavar="N", min=0, help="Only the last N lines.")] = None
    grep: Annotated[str, Option("--grep", metavar="REGEX", help="Only lines that match.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Show the server's log with secrets masked."""
    from deployer.deployment.find import require
    from deployer.errors import UsageError
    from deployer.secrets import mask

    if options.follow and options.json:
        raise UsageError("--follow and --json exclude each other: a followed log has no end", hint="leave out --follow")
    try:
        pattern = re.compile(options.grep)
    except re.error as error:
        raise UsageError(f"--grep: {error}") from None
    deployment = require(options.name, engine=options.engine)
    deployment.passwords.known("root")  # from now on known to mask()
    # With a filter, the last N are the last N that match.
    tail = None if options.grep else options.lines
    found = (
        mask(line)
        for line in deployment.engine.logs(options.name, follow=options.follow, since=options.since, tail=tail)
        if pattern.search(line)
    )
    if options.follow:
        for line in found:
            ui.line(line)
        return Result()
    lines = list(found)
    if options.grep and options.lines is not None:
        lines = lines[max(0, len(lines) - options.lines) :]
    return Result(data={"lines": lines}, text="\n".join(lines))
