"""``deployer token create``: create a token that can only upload."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Talking, client_index, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    user: Annotated[str, Argument(metavar="USER", help="User of the token.")]
    index: Annotated[
        list[str] | None,
        Option("--index", metavar="USER/NAME", help="Only this index, else the clients' one; may be repeated."),
    ] = None
    project: Annotated[
        list[str] | None, Option("--project", metavar="NAME", help="Only this project; may be repeated.")
    ] = None
    expires: Annotated[str, Option("--expires", metavar="TIME", help="Lifetime: 30m, 12h, 90d, 4w, 1y.")] = "90d"


def run(options: Options, ui: UI) -> Result:
    """Create an upload token and print it once.

    The token can upload to these indexes until it expires. Only root can create tokens.
    """
    from deployer.devpi.admission import require_index
    from deployer.errors import ServerRefused

    seconds = lifetime(options.expires)
    indexes = options.index or [client_index(options, "")]
    with connect(options) as session:
        topology = session.api.topology()
        if options.user not in topology.users:
            raise ServerRefused(f"there is no user {options.user}", hint="deployer user list")
        warnings = []
        for index in indexes:
            acl = require_index(index, topology).fields.get("acl_upload", ())
            if isinstance(acl, tuple) and not {options.user, ":ANONYMOUS:", ":AUTHENTICATED:"} & set(acl):
                warnings.append(f"{options.user} may not upload to {index}: add {options.user} to its acl_upload")
        until = int(time.time()) + seconds
        token = (
            session.login()
            .new_token(options.user, expires=until, indexes=indexes, projects=options.project or ())
            .reveal()
        )
        path = f"{session.api.url}/{indexes[0]}/"
    when = datetime.fromtimestamp(until, UTC).isoformat()
    ui.step("token", f"uploads to {', '.join(indexes)} until {when}; user {options.user}, address {path}")
    data = {"user": options.user, "token": token, "expires": when, "indexes": indexes, "upload_url": path}
    return Result(data={**data, "projects": options.project or []}, text=token, warnings=tuple(warnings))


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
