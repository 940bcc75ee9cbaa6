"""``deployer clients login``: give clients a user and password, or a token, for a protected index."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from typer import Option

from deployer.commands import Comparing, TrustedCa
from deployer.ui.output import UI, Result

TOKEN_USER = "__token__"  # noqa: S105 - a user's name
"""The user that our own server knows the holder of any token by."""


@dataclass(frozen=True, kw_only=True)
class Options(Comparing):
    user: Annotated[str, Option("--user", metavar="USER", help="User; without it, `__token__`: send a token.")] = ""
    ca: TrustedCa = ""
    password_from: Annotated[
        str,
        Option(
            "--password-from",
            metavar="REF",
            help="Where its password or token is: env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER.",
        ),
    ] = ""


def run(options: Options, ui: UI) -> Result:
    """Give clients a login for a protected index, in ~/.netrc.

    pip, uv, poetry and others read that file. On the host of the server it makes a read token; with --url
    or --user, it reads the password or token from standard input, or from where --password-from says. The login is
    tried first. `deployer clients logout` restores the file exactly.
    """
    from deployer.clients.client import Account
    from deployer.clients.netrc import Login, host_of
    from deployer.deployment.secret_refs import referenced
    from deployer.operations import logins
    from deployer.operations.client_files import settings_for
    from deployer.operations.cluster.session import connect
    from deployer.ui.prompts import read_password

    account = Account.of(os.environ)
    url = settings_for(options.name, index=options.index, url=options.url).index_url
    logins.split(url)
    if options.url or options.user or options.password_from:
        user, given = options.user or TOKEN_USER, options.password_from
        login = Login(user, referenced(given, where="--password-from") if given else read_password(user))
        logins.check(url, login, ca=options.ca)
    else:
        with connect(options.name) as session:
            login = logins.made(session, url)
    change = logins.write(url, login, account)
    ui.step("login", f"{change.path}: {login.user} at {host_of(url)} (undo: deployer clients logout)")
    data = {"path": str(change.path), "changed": change.changed, "host": host_of(url), "user": login.user}
    return Result(data={**data, "index_url": url})
