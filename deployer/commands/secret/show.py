"""``deployer secret show``: print a stored password; no other command does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Located, user_name
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Located):
    user: Annotated[str, Argument(metavar="USER", callback=user_name, help="Name of the user.")] = "root"


def run(options: Options, ui: UI) -> Result:
    """Print the stored password of a user."""
    from deployer.deployment.find import require
    from deployer.deployment.session import connect
    from deployer.errors import ConflictError

    deployment = require(options.name, engine=options.engine)
    password = deployment.passwords.known(options.user)
    if options.user == "root" and deployment.passwords.in_doubt:
        with connect(options.name, engine=options.engine) as session:
            password = session.password()
    if password is None:
        raise ConflictError(
            f"the password of {options.user} is not stored on this host",
            hint=f"store it: deployer secret set {options.user}",
        )
    return Result(data={"user": options.user, "password": password.reveal()}, text=password.reveal())
