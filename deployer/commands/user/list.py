"""``deployer user list``: the users of the server."""

from __future__ import annotations

from dataclasses import dataclass

from deployer.commands import Talking, connect
from deployer.ui.output import UI, Result


@dataclass(frozen=True, kw_only=True)
class Options(Talking):
    pass


def run(options: Options, ui: UI) -> Result:
    """List the users of the server.

    --json adds the indexes of each user, and whether this host stores the password.
    """
    with connect(options) as session:
        topology = session.api.topology()
        rows = [
            {
                "name": user,
                **node.fields,
                "indexes": sorted(name for name in topology.indexes if name.partition("/")[0] == user),
                "password_known": session.deployment is not None
                and session.deployment.passwords.known(user) is not None,
            }
            for user, node in sorted(topology.users.items())
        ]
    text = "\n".join("  ".join((str(row["name"]), str(row.get("email", "")))).rstrip() for row in rows)
    return Result(data={"users": rows}, text=text)
