"""``deployer token revoke``: revoke tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result

EACH = "all"


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    user: Annotated[str, Argument(metavar="USER", help="User of the token.")]
    token_id: Annotated[str, Argument(metavar="ID", help="ID from `deployer token list`, or `all`.")]


def run(options: Options, ui: UI) -> Result:
    """Revoke a token by its ID, with immediate effect."""
    from deployer.errors import ServerRefused

    with connect(options) as session:
        api = session.login()
        known = sorted(api.tokens(options.user))
        if options.token_id not in (*known, EACH):
            raise ServerRefused(f"{options.user} has no token with this ID", hint=f"deployer token list {options.user}")
        revoked = known if options.token_id == EACH else [options.token_id]
        for token in revoked:
            api.revoke_token(options.user, token)
    ui.step("token", f"{', '.join(revoked) or 'none'} revoked")
    return Result(data={"user": options.user, "revoked": revoked})
