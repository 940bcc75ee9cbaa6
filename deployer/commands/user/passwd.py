"""``deployer user passwd``: change a password to a generated or a given one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument, Option

from deployer.commands import Writing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Writing):
    user: Annotated[str, Argument(metavar="USER", help="Name of the user.")] = "root"
    password_stdin: Annotated[bool, Option("--password-stdin", help="Read the password instead of generating it.")] = (
        False
    )


def run(options: Options, ui: UI) -> Result:
    """Change a user's password; generate it unless one is given.

    Existing logins stay valid for up to ten hours: devpi checks their signature only.
    """
    from deployer.deployment.lock import hold
    from deployer.errors import ServerRefused
    from deployer.secrets import generate
    from deployer.ui.prompts import read_password

    given = read_password(options.user) if options.password_stdin else None
    with hold(options.name, wait=options.wait), connect(options) as session:
        if options.user not in session.api.topology().users:
            raise ServerRefused(f"there is no user {options.user}", hint="deployer user list")
        api = session.login()
        password = given or generate()
        with session.changing(options.user, password):
            api.set_password(options.user, password)
    ui.step("user", f"{options.user} has a new password (deployer secret show {options.user})")
    return Result(data={"user": options.user})
