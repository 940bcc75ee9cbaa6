"""``deployer token list``: the tokens of a user."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from typer import Argument

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    user: Annotated[str, Argument(metavar="USER", help="Name of the user.")]


def run(options: Options, ui: UI) -> Result:
    """List the tokens of a user: ID, scope, expiry.

    The tokens themselves are not stored and can't be shown.
    """
    with connect(options) as session:
        tokens = session.login().tokens(options.user)
    rows = []
    for name, restrictions in sorted(tokens.items()):
        row = dict(one.partition("=")[::2] for one in restrictions)
        if row.get("expires", "").isdigit():
            until = datetime.fromtimestamp(int(row["expires"]), UTC)
            row |= {"expires": until.isoformat(), "expired": str(until < datetime.now(UTC)).lower()}
        rows.append({"id": name, **row})
    text = "\n".join(
        "  ".join(f"{key}={value}" if key != "id" else value for key, value in row.items()) for row in rows
    )
    return Result(data={"user": options.user, "tokens": rows}, text=text)
