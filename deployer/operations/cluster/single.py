"""The way back from a cluster on this host to a single server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.deployment.cluster import HERE, forget_kept, member_name, read_kept
from deployer.deployment.record import forget
from deployer.errors import Refused
from deployer.operations.cluster.places import open_kept

if TYPE_CHECKING:
    from deployer.ui.output import UI


def leave(name: str, ui: UI, *, keeping: bool) -> None:
    """Forget that ``name`` was a cluster, once nothing of it runs: its member 0 has the place of a single server.

    ``keeping``: check alone. Raises Refused.
    """
    kept, cluster = read_kept(name), open_kept(name, ui)
    if kept is None or cluster is None:
        return
    if cluster.members():
        raise Refused(
            f"{name} is a cluster, and the profile asks for a single server",
            hint="deployer down keeps all data; then run deployer up again",
        )
    if kept.place == HERE and kept.primary:
        raise Refused(
            f"member {kept.primary} of {name} was the primary, and a single server has the data of member 0",
            hint="bring the cluster up once more, and: deployer cluster promote 0",
        )
    if not keeping:
        forget_kept(name)
        forget(member_name(name, 0))  # its data are those of the single server from now on
