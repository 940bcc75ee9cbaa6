"""``deployer token create``: create a token that can upload, read, or both, and nothing else."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result

if TYPE_CHECKING:
    from deployer.devpi.topology import Node


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    user: Annotated[str, Argument(metavar="USER", help="User of the token.")]
    index: Annotated[
        list[str] | None,
        Option("--index", metavar="USER/NAME", help="Only this index, else the clients' one; may be repeated."),
    ] = None
    project: Annotated[
        list[str] | None, Option("--project", metavar="NAME", help="Upload this project only; may be repeated.")
    ] = None
    read: Annotated[bool, Option("--read", help="It may read the indexes and their bases; alone, it can't upload.")] = (
        False
    )
    upload: Annotated[bool, Option("--upload", help="It may upload; the default without --read.")] = False
    expires: Annotated[str, Option("--expires", metavar="TIME", help="Lifetime: 30m, 12h, 90d, 4w, 1y.")] = "90d"


def run(options: Options, ui: UI) -> Result:
    """Create a token to upload, read, or both, and print it once.

    It uploads to these indexes; with --read, it reads them and their bases. It does nothing else, and ends when it
    expires or is revoked. A user creates tokens for himself with --as.
    """
    from deployer.devpi.admission import require_index
    from deployer.errors import ServerRefused
    from deployer.plan.order import below

    seconds = lifetime(options.expires)
    uploads = options.upload or not options.read
    _check_projects(options)
    named = options.index or [client_index(options, "")]
    with connect(options) as session:
        api = session.login()
        topology = api.topology()
        if options.user not in topology.users:
            raise ServerRefused(f"there is no user {options.user}", hint="deployer user list")
        nodes = {index: require_index(index, topology) for index in named}
        # A page links to files of its bases, so a token that may not read them is of no use.
        bases = {base: topology.indexes[base] for index in named for base in below(topology.indexes, index)}
        indexes = list(bases) if options.read else named
        warnings = [
            f"{options.user} may not upload to {index}: add {options.user} to its acl_upload"
            for index, node in nodes.items()
            if uploads and not _may_upload(options.user, node)
        ]
        warnings += [
            f"the token can upload to {index}, too, a base that it reads: create two tokens to prevent that"
            for index, node in bases.items()
            if uploads and options.read and index not in nodes and _may_upload(options.user, node)
        ]
        until = int(time.time()) + seconds
        allowed = [*(("upload",) if uploads else ()), *(("pkg_read",) if options.read else ())]
        token = api.new_token(
            options.user, allowed=allowed, expires=until, indexes=indexes, projects=options.project or ()
        ).reveal()
        path = f"{api.url}/{named[0]}/"
    when = datetime.fromtimestamp(until, UTC).isoformat()
    does = " and ".join([*(("uploads to",) if uploads else ()), *(("reads",) if options.read else ())])
    ui.step("token", f"{does} {', '.join(indexes)} until {when}; user {options.user}, address {path}")
    data = {"user": options.user, "token": token, "expires": when, "indexes": indexes, "upload_url": path}
    data |= {"allowed": allowed, "simple_url": f"{path}+simple/", "projects": options.project or []}
    return Result(data=data, text=token, warnings=tuple(warnings))


def _check_projects(options: Options) -> None:
    from deployer.errors import UsageError

    if options.read and options.project:
        raise UsageError(
            "--read with --project: a token limited to projects reads no protected index",
            hint="leave out --project, or create two tokens",
        )


def _may_upload(user: str, node: Node) -> bool:
    acl = node.fields.get("acl_upload", ())
    return not isinstance(acl, tuple) or bool({user, ":ANONYMOUS:", ":AUTHENTICATED:"} & set(acl))


def lifetime(text: str) -> int:
    """Return the seconds of a lifetime such as ``90d``. Raises UsageError."""
    from deployer.errors import UsageError

    units = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "y": 365 * 86400}
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdwy])", text)
    if found is None or (seconds := int(found[1]) * units[found[2]]) > 10 * units["y"]:
        raise UsageError(
            f"invalid token lifetime {text[:40]!r}", hint="give a lifetime such as 30m, 12h, 90d, 4w or 1y, at most 10y"
        )
    return seconds
