"""``deployer secret set``: store a password that was set by other means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Exclusive, Located, user_name
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Exclusive, Located):
    user: Annotated[str, Argument(metavar="USER", callback=user_name, help="Name of the user.")] = "root"


def run(options: Options, ui: UI) -> Result:
    """Store the existing password of a user.

    It reads the password from the terminal or standard input, and does not change it on the server.
    """
    from deployer.deployment.lock import hold
    from deployer.deployment.passwords import Passwords
    from deployer.ui.prompts import read_password

    password = read_password(options.user)
    with hold(options.name, wait=options.wait):
        Passwords(name=options.name).store(options.user, password)
    ui.step("secret", f"the password of {options.user} is kept, 0600")
    return Result(data={"user": options.user})
