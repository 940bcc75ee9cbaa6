"""``deployer logs``: the log of the server."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from typer import Option

from deployer.commands import Located
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.deployment.find import Deployment


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    follow: Annotated[bool, Option("--follow", "-f", help="Follow the log.")] = False
    since: Annotated[str, Option("--since", metavar="WHEN", help="RFC 3339 time, or a duration such as 10m.")] = ""
    lines: Annotated[int | None, Option("--lines", "-n", metavar="N", min=0, help="Only the last N lines.")] = None
    changes: Annotated[bool, Option("--changes", help="Who changed what, instead of the log.")] = False
    refused: Annotated[bool, Option("--refused", help="Refused logins and writes, instead of the log.")] = False
    member: Annotated[int | None, Option("--member", metavar="N", min=0, help="Of a cluster: this member only.")] = None
    grep: Annotated[str, Option("--grep", metavar="REGEX", help="Only lines that match.")] = ""


def run(options: Options, ui: UI) -> Result:
    """Show the server's log with secrets masked.

    `--changes` shows who uploaded, deleted, and changed users, indexes and tokens; `--refused` which logins and writes
    were refused.
    """
    from deployer.deployment.find import require
    from deployer.errors import UsageError
    from deployer.secrets import mask

    if options.follow and options.json:
        raise UsageError("--follow and --json exclude each other: a followed log has no end", hint="leave out --follow")
    if options.follow and (options.changes or options.refused):
        raise UsageError("--follow shows the server's log only", hint="leave out --follow")
    try:
        pattern = re.compile(options.grep)
    except re.error as error:
        raise UsageError(f"--grep: {error}") from None
    if options.member is not None:
        raise UsageError(f"{options.name} is no cluster, so it has no member", hint="leave out --member")
    deployment = require(options.name, engine=options.engine)
    if options.changes or options.refused:
        return _changes(deployment, options, pattern)
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
    return Result(data={"lines": lines, "changes": []}, text="\n".join(lines))


def _changes(deployment: Deployment, options: Options, pattern: re.Pattern[str]) -> Result:
    from deployer.engines.timestamps import moment
    from deployer.operations.changes import read, row
    from deployer.ui.table import columns

    found = read(deployment, refused=options.refused, changes=options.changes)
    first = moment(options.since).isoformat() if options.since else ""
    found = [one for one in found if one["time"] >= first and pattern.search(" ".join(row(one)))]
    if options.lines is not None:
        found = found[max(0, len(found) - options.lines) :]
    return Result(data={"lines": [], "changes": found}, text=columns([row(one) for one in found]))
