"""``deployer token exchange``: exchange the ID token of a CI job for a token of the server."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from typer import Option

from deployer.commands import Common, address
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Common):
    url: Annotated[
        str, Option("--url", metavar="URL", callback=address, help="Address of the server: https://HOST.")
    ] = ""
    audience: Annotated[
        str, Option("--audience", metavar="TEXT", help="Audience of the ID token on GitHub; default: --url.")
    ] = ""
    id_token: Annotated[
        str,
        Option(
            "--id-token",
            metavar="REF",
            help="Where the ID token is: env:NAME or file:PATH. On GitHub the runner is asked.",
        ),
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Exchange the ID token of a CI job for a short-lived token.

    Prints the token, for `deployer clients login` or TWINE_PASSWORD. The rules are server.oidc of the profile. On
    GitHub the job needs the permission `id-token: write`; on GitLab, `id_tokens:`.
    """
    import os

    from deployer.deployment.secret_refs import referenced
    from deployer.errors import UsageError
    from deployer.operations.id_tokens import exchange, of_github

    if not options.url:
        raise UsageError("no server to ask", hint="add --url https://HOST")
    if options.id_token:
        given = referenced(options.id_token, where="--id-token")
    else:
        given = of_github(os.environ, options.audience or options.url.rstrip("/"))
    made = exchange(options.url, given)
    until = datetime.fromtimestamp(made.expires, UTC).isoformat()
    ui.step("token", f"{' and '.join(made.allowed)} on {', '.join(made.indexes)} until {until}; user {made.user}")
    token = made.token.reveal()
    data = {"user": made.user, "token": token, "expires": until, "indexes": list(made.indexes)}
    return Result(data={**data, "allowed": list(made.allowed)}, text=token)
