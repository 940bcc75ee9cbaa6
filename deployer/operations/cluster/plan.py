"""The steps of ``up`` of a cluster, each with its changes, without any effect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deployer.deployment.passwords import ROOT
from deployer.deployment.record import read_applied
from deployer.devpi.change import Kind
from deployer.devpi.converge import steps as converging
from deployer.devpi.declared import wanted as declared
from deployer.devpi.difference import compare
from deployer.devpi.topology import EMPTY
from deployer.errors import DeployerError
from deployer.operations import client_files
from deployer.operations.cluster.places import open_wanted
from deployer.operations.cluster.status import compared
from deployer.operations.cluster.up import Pointed, wanted_of
from deployer.operations.plan import Step
from deployer.operations.recorded import deployed
from deployer.plan import members_named
from deployer.profile.load import Loaded, load

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster, Wanted
    from deployer.ui.output import UI


def steps(cluster: Cluster, loaded: Loaded, name: str) -> dict[str, Step]:
    """Return each step by its name. Raises as ``up`` before its first effect."""
    wanted = wanted_of(loaded, name, cluster)
    due = list(cluster.differences(wanted))
    found: dict[str, Step] = {"engine": ([cluster.probe()], False)}
    found["members"] = (due or [f"{wanted.size} members run as planned"], bool(due))
    found["indexes"] = _indexes(cluster, wanted)
    address = cluster.address()
    changes = client_files.preview(Pointed.of(loaded.profile, address)) if address else {}
    for client, change in changes.items():
        keys = ", ".join(change.keys)
        found[client] = ([f"{change.path}: {keys if change.changed else 'unchanged'}"], change.changed)
    return found


def _indexes(cluster: Cluster, wanted: Wanted) -> Step:
    from deployer.devpi.api import DevpiApi

    own = wanted.profile
    default = wanted.upstream or "(the default of devpi-server)"
    goal = declared(own.users, members_named(own.indexes, own.groups), default_mirror_url=default)
    if not cluster.members():
        found = compare(EMPTY, goal) if not wanted.identity.uuid else ()
    else:
        try:
            with cluster.reach() as url, DevpiApi(url) as api:
                api.read_as(ROOT, cluster.password())
                found = converging(api, goal)
        except DeployerError:
            return ["compared when the primary runs"], False
    lines = [change.text for change in found if change.kind is not Kind.UNCHANGED]
    return lines or ["unchanged"], any(change.due for change in found)


def drift(profile: str, name: str, data: dict[str, Any], ui: UI) -> DeployerError | None:
    """Compare with the profile and the options of the last ``up``; set ``drift`` in ``data``."""
    ref, held = deployed(profile, read_applied(name))
    loaded = load(ref, overrides=held)
    data["compared_with"] = {"profile": ref, "overrides": {override.key: override.value for override in held}}
    cluster = open_wanted(loaded, name, ui)
    return compared(data, cluster.differences(wanted_of(loaded, name, cluster)))
