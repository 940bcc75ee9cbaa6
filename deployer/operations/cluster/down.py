"""Remove a cluster, and its data on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.deployment.cluster import forget_kept
from deployer.deployment.passwords import Passwords
from deployer.deployment.record import forget
from deployer.operations.down import Down
from deployer.operations.purge import left_service
from deployer.ui.prompts import consent

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster
    from deployer.ui.output import UI


def down(cluster: Cluster, name: str, *, purging: bool, yes: bool, ui: UI) -> Down:
    """Remove all members, and the volumes on request after a question. The caller holds the lock."""
    members = cluster.members()
    if purging:
        consent(f"the data of all {len(members) or 'former'} members of {name} and everything uploaded to it", yes=yes)
    with ui.working("members", f"removing {name}") as progress:
        left = cluster.down(purging=purging, on_line=progress)
    if members:
        ui.step("members", f"{len(members)} removed")
    if left:
        ui.step("data", f"{', '.join(left)} (kept; delete it with --purge)")
    if purging:
        forget(name)
        Passwords(name=name).forget_all()
        forget_kept(name)
    if not members and not purging:
        ui.step("members", f"{name}: nothing to do")
    return Down(
        removed=[member.name for member in members],
        kept=", ".join(left),
        purged=purging,
        warnings=left_service(name) if members else (),
    )
