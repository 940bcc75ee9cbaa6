"""A profile as objects of Kubernetes: plain data, which a dumper of JSON or YAML quotes. Pure.

One StatefulSet has all members. The number of a pod is its member's. Which one is the primary stands in a ConfigMap,
which the pods get as environment variables: the words of the command are the same in each pod, and the uuid of the
data can be filled in later without a restart. The number of the primary is an annotation of the pods, too, so that
another one replaces them.
"""

from __future__ import annotations

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.manifests.names import Manifest
from deployer.clusters.kubernetes.manifests.network import config_map, disruption_budget, ingress, policy, services
from deployer.clusters.kubernetes.manifests.network import service_monitor as monitor
from deployer.clusters.kubernetes.manifests.pods import stateful_set

KINDS = (
    "ConfigMap",
    "Service",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "StatefulSet",
    "Ingress",
    "ServiceMonitor",
)
"""The kinds that :func:`manifests` makes. The Secret is made once, by :mod:`deployer.clusters.kubernetes.place`."""


def manifests(wanted: Wanted) -> tuple[Manifest, ...]:
    """All objects, in the order in which they are needed. No secret is in them."""
    settings = wanted.profile.kubernetes
    return (
        config_map(wanted),
        *services(wanted),
        policy(wanted),
        disruption_budget(wanted),
        stateful_set(wanted),
        *((ingress(wanted),) if settings.host else ()),
        *((monitor(wanted),) if settings.service_monitor else ()),
    )
