"""A new certificate for the balancer of a cluster on this host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer.deployment.lock import hold
from deployer.errors import ConflictError
from deployer.operations.cluster.host.place import HostCluster
from deployer.operations.cluster.places import open_deployed
from deployer.operations.tls import Renewed

if TYPE_CHECKING:
    from deployer.ui.output import UI


def renew(profile: str, name: str, *, lock_wait: float, ui: UI) -> Renewed:
    """As :func:`deployer.operations.tls.renew`, for a cluster on this host."""
    with hold(name, wait=lock_wait):
        cluster, _ = open_deployed(profile, name, ui)
        if not isinstance(cluster, HostCluster):
            raise ConflictError(f"{name} does not run on this host", hint="deployer up")
        return cluster.renew_certificate()
