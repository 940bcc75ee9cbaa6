"""Which deployments are clusters, and the places where their members run. The one door from verbs to clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from deployer.clusters.base import Cluster, PlaceName
from deployer.deployment.cluster import read_kept
from deployer.deployment.record import read_applied
from deployer.errors import ConflictError, Refused

if TYPE_CHECKING:
    from deployer.profile.load import Loaded
    from deployer.profile.models import Profile
    from deployer.ui.output import UI

_ENGINES: Mapping[str, PlaceName] = {"swarm": PlaceName.SWARM, "kubernetes": PlaceName.KUBERNETES}
"""The engines of a profile that are places of their own; any other one runs members on this host."""
Opener = Callable[[str, "Profile"], Cluster]
_OPENERS: Mapping[PlaceName, tuple[str, str]] = {
    PlaceName.SWARM: ("deployer.clusters.swarm", "open_swarm"),
    PlaceName.KUBERNETES: ("deployer.clusters.kubernetes", "open_kubernetes"),
}


def place_of(profile: Profile) -> PlaceName | None:
    """The place that a profile asks for; None for a single server."""
    return _ENGINES.get(profile.engine) or (PlaceName.HOST if profile.cluster.replicas else None)


def check(profile: Profile) -> None:
    """Raise Refused for what no cluster can do."""
    if profile.server.version != "6":
        raise Refused(
            f"devpi-server {profile.server.version} is not supported in a cluster",
            hint='set server.version: "6", or cluster.replicas: 0',
        )
    if profile.image.ref:
        raise Refused(
            f"{profile.image.ref} is not built by deployer, and can't be a member of a cluster",
            hint="remove image.ref; cluster.image is where Swarm and Kubernetes pull deployer's own image from",
        )
    if profile.data == "temp" or profile.server.lifetime == "job":
        raise Refused(
            "data: temp and server.lifetime: job are for a server that one job uses",
            hint="choose another place with --data, or set cluster.replicas: 0",
        )


def open_wanted(loaded: Loaded, name: str, ui: UI) -> Cluster:
    """The place of a profile for the cluster ``name``. Raises Refused, EngineError."""
    place = place_of(loaded.profile)
    check(loaded.profile)
    if place is not None and place in _OPENERS:
        return _opened(place, name, loaded.profile)
    from deployer.operations.cluster.host.place import HostCluster

    return HostCluster(name, ui, loaded=loaded)


def open_kept(name: str, ui: UI) -> Cluster | None:
    """The place of the cluster ``name`` as the last ``up`` left it; None when it is no cluster, or unknown here."""
    kept = read_kept(name)
    if kept is None:
        return None
    place = PlaceName(kept.place)
    if place not in _OPENERS:
        from deployer.operations.cluster.host.place import HostCluster

        return HostCluster(name, ui)
    applied = read_applied(name)
    if applied is None:
        raise ConflictError(
            f"where the members of {name} run is not recorded on this host", hint="name its profile with --profile"
        )
    from deployer.profile.models import Profile

    return _opened(place, name, Profile.model_validate(applied.profile))


def open_deployed(profile: str, name: str, ui: UI) -> tuple[Cluster, Loaded]:
    """The place of a cluster with its profile and the options of its last ``up``, to change it.

    Raises ConflictError when it is no cluster, ProfileError.
    """
    from deployer.operations.recorded import deployed
    from deployer.profile.load import load

    ref, held = deployed(profile, read_applied(name))
    loaded = load(ref, overrides=held)
    if place_of(loaded.profile) is None:
        raise ConflictError(f"{name} is no cluster", hint="set cluster.replicas in its profile, then: deployer up")
    return open_wanted(loaded, name, ui), loaded


def _opened(place: PlaceName, name: str, profile: Profile) -> Cluster:
    module, function = _OPENERS[place]
    opener: Opener = getattr(import_module(module), function)
    return opener(name, profile)
