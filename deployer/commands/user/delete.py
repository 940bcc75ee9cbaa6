"""``deployer user delete``: delete a user without indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from typer import Argument

from deployer.commands import Removing, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Removing):
    user: Annotated[str, Argument(metavar="USER", help="Name of the user.")]


def run(options: Options, ui: UI) -> Result:
    """Delete a user without indexes."""
    from deployer.deployment.lock import hold
    from deployer.errors import ConflictError, Refused, ServerRefused
    from deployer.ui.prompts import consent

    if options.user == "root":
        raise Refused("the user root can't be deleted: it administers the server", hint="name another user")
    with hold(options.name, wait=options.wait), connect(options) as session:
        topology = session.api.topology()
        if options.user not in topology.users:
            raise ServerRefused(f"there is no user {options.user}", hint="deployer user list")
        if own := sorted(name for name in topology.indexes if name.partition("/")[0] == options.user):
            raise ConflictError(f"{options.user} owns {', '.join(own)}", hint=f"deployer index delete {own[0]}")
        consent(f"the user {options.user}", yes=options.yes)
        session.login().delete_user(options.user)
        session.forget(options.user)
    ui.step("user", f"{options.user} deleted")
    return Result(data={"user": options.user})
