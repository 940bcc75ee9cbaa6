"""The StatefulSet: one pod and one volume for each member, within the *restricted* Pod Security Standard."""

from __future__ import annotations

from typing import Any

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.manifests.names import (
    CONTAINER,
    DATA,
    FENCE,
    MEMBERS_SECRET,
    PORTS,
    PRIMARY,
    ROLE,
    ROOT_PASSWORD,
    SECRET,
    SECRET_DIR,
    STATE,
    STATE_DIR,
    STOPPED,
    TMP,
    UID,
    UUID,
    WAITS,
    Manifest,
    labels,
    made,
    members_service,
    of_profile,
    selector,
)
from deployer.clusters.kubernetes.manifests.network import ports
from deployer.clusters.kubernetes.manifests.quantities import quantity
from deployer.clusters.kubernetes.manifests.words import command
from deployer.plan.limits import wanted_limits
from deployer.protocol import IMAGE_PYTHON, LIVE_ROUTE, READY_ROUTE

_PAUSE = 5
"""Seconds that a member goes on after it is to stop, in which balancers learn that it will."""
_SPARE = 15
"""Seconds beyond ``server.stop_timeout`` after which a pod is killed."""
_FENCE = f"""
import os, pathlib, time
stopped = pathlib.Path("{STATE_DIR}/{STOPPED}")
while stopped.exists() and os.environ["MEMBER"] in stopped.read_text().split():
    print("{WAITS}", flush=True)
    time.sleep(5)
"""
"""A member that must not run waits here: the StatefulSet makes each pod again that is removed."""


def stateful_set(wanted: Wanted) -> Manifest:
    """All members. They start at the same time, since a replica may be what the others need.

    The controller replaces pods from the highest number to the lowest: the primary comes last when its number is 0. For
    any other one it replaces none by itself (``OnDelete``), and ``up`` deletes them in order.
    """
    strategy = "RollingUpdate" if wanted.identity.primary == 0 else "OnDelete"
    spec = {
        "serviceName": members_service(wanted.name),
        "replicas": wanted.size,
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": strategy},
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": selector(wanted.name)},
        "template": {
            "metadata": {
                "labels": {**selector(wanted.name), "app.kubernetes.io/component": "member"},
                "annotations": {ROLE: str(wanted.identity.primary)},
            },
            "spec": _pod(wanted),
        },
        "volumeClaimTemplates": [_claim(wanted)],
    }
    return made(
        "StatefulSet",
        "apps/v1",
        wanted.name,
        labels=labels(wanted.name, wanted.image),
        annotations=of_profile(wanted.profile_name),
        spec=spec,
    )


def _claim(wanted: Wanted) -> Manifest:
    settings = wanted.profile.kubernetes
    chosen = {"storageClassName": settings.storage_class} if settings.storage_class else {}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": DATA, "labels": selector(wanted.name)},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            **chosen,
            "resources": {"requests": {"storage": quantity(settings.size)}},
        },
    }


def _pod(wanted: Wanted) -> dict[str, Any]:
    settings, name = wanted.profile.kubernetes, wanted.name
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": wanted.profile.server.stop_timeout + _PAUSE + _SPARE,
        **({"imagePullSecrets": [{"name": settings.pull_secret}]} if settings.pull_secret else {}),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            # Else each start changes the mode of each file.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            _spread(name, "kubernetes.io/hostname"),
            _spread(name, "topology.kubernetes.io/zone"),
        ],
        "initContainers": [_fence(wanted)],
        "containers": [_server(wanted)],
        "volumes": [
            {"name": TMP, "emptyDir": {"sizeLimit": "1Gi"}},
            {"name": STATE, "configMap": {"name": name}},
            {"name": SECRET, "secret": {"secretName": settings.secret or name, "defaultMode": 0o440, "items": _keys()}},
        ],
    }


def _keys() -> list[dict[str, str]]:
    return [{"key": key, "path": key} for key in (MEMBERS_SECRET, ROOT_PASSWORD)]


def _spread(name: str, key: str) -> dict[str, Any]:
    """On different nodes and in different zones, as far as there are any."""
    return {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector(name)},
    }


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _resources(wanted: Wanted) -> dict[str, Any]:
    """Of memory as much is reserved as may be used: a node without it would kill the primary."""
    limits = wanted_limits(wanted.profile)
    memory = {"memory": quantity(limits.memory)} if limits.memory else {}
    cpus = {"cpu": f"{round(limits.cpus * 1000)}m"} if limits.cpus else {}
    resources = {"requests": memory | ({} if cpus else {"cpu": "100m"}) | cpus, "limits": memory | cpus}
    return {key: value for key, value in resources.items() if value}


def _number() -> dict[str, Any]:
    """The number of a pod (Kubernetes 1.28 and newer)."""
    field = {"fieldPath": "metadata.labels['apps.kubernetes.io/pod-index']"}
    return {"name": "MEMBER", "valueFrom": {"fieldRef": field}}


def _remembered(variable: str, name: str, key: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}


def _fence(wanted: Wanted) -> dict[str, Any]:
    return {
        "name": FENCE,
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [*IMAGE_PYTHON, "-c", _FENCE.replace("$", "$$")],
        "env": [_number()],
        "securityContext": _confined(),
        "resources": _resources(wanted),
        "volumeMounts": [{"name": STATE, "mountPath": STATE_DIR, "readOnly": True}],
    }


def _server(wanted: Wanted) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(command(wanted)),
        "env": [
            _number(),
            {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            _remembered("PRIMARY", wanted.name, PRIMARY),
            _remembered("CLUSTER_UUID", wanted.name, UUID),
        ],
        "ports": [{"name": name, "containerPort": PORTS[name], "protocol": "TCP"} for name in ports(wanted)],
        # An hour: a new version may have to convert the data, and what kills it then kills it each time.
        "startupProbe": _probe(LIVE_ROUTE, every=5, failures=720),
        # Never about the primary: a replica that lacks it serves what it has.
        "livenessProbe": _probe(LIVE_ROUTE, every=20, failures=6),
        "readinessProbe": _probe(READY_ROUTE, every=5, failures=2),
        "lifecycle": {"preStop": {"exec": {"command": [*IMAGE_PYTHON, "-c", f"import time; time.sleep({_PAUSE})"]}}},
        "securityContext": _confined(),
        "resources": _resources(wanted),
        "volumeMounts": [
            {"name": DATA, "mountPath": "/data"},
            {"name": TMP, "mountPath": "/tmp"},  # noqa: S108 - inside the container
            {"name": SECRET, "mountPath": SECRET_DIR, "readOnly": True},
        ],
    }


def _probe(path: str, *, every: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": every,
        "timeoutSeconds": 10,
        "failureThreshold": failures,
    }
