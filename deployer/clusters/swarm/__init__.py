"""Members on a Docker Swarm: a service for each of them, and balancers in front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.clusters.base import Cluster

if TYPE_CHECKING:
    from deployer.profile.models import Profile


def open_swarm(name: str, profile: Profile) -> Cluster:
    """The swarm that a profile names, as the place of the cluster ``name``."""
    from deployer.clusters.swarm.place import SwarmCluster

    return SwarmCluster(name, context=profile.swarm.context)
