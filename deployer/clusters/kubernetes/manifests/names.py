"""Names, labels and paths that the objects of a cluster share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deployer.plan.container import METRICS_PORT, OWN_DATA, OWN_PORT
from deployer.spec import LABEL_NAME, LABEL_PROFILE

Manifest = dict[str, Any]

MANAGER = "deployer"
"""The field manager, and the value of ``app.kubernetes.io/managed-by``."""
CONTAINER, FENCE = "devpi", "fence"
WAITS = "stopped by deployer"
"""What the fence says when it holds a member."""
DATA, SECRET, TMP = "data", "secret", "tmp"
"""Names of volumes. The one of the ConfigMap is :data:`STATE`."""
STATE = "cluster"
SERVER_DIR = f"{OWN_DATA}/server"
"""Below the root of the volume, which belongs to root, and where file systems keep ``lost+found``."""
SECRET_DIR, STATE_DIR = "/etc/deployer/secret", "/etc/deployer/cluster"
MEMBERS_SECRET, ROOT_PASSWORD = "members-secret", "root-password"
PRIMARY, UUID, STOPPED, FORMER = "primary", "uuid", "stopped", "former"
"""Keys of the ConfigMap. ``stopped``: the numbers of the members that must not run, with spaces between.

``former``: the one that was the primary, and whose data are not yet given up.
"""
ROLE = "io.devpi.deployer/primary"
"""Annotation of a pod: the primary that it was started with."""
HTTP, METRICS = "http", "metrics"
"""Names of ports."""
PORTS = {HTTP: OWN_PORT, METRICS: METRICS_PORT}
UID = 3141
"""Of the user in our image."""
LONGEST = 50
"""Letters of the longest name: a StatefulSet's, with a revision of eleven, is a label of its pods."""
_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")


def is_name(name: str) -> bool:
    """Whether objects of every kind can have this name (RFC 1035 labels; kubernetes.io, Object Names and IDs)."""
    return len(name) <= LONGEST and _NAME.fullmatch(name) is not None


def members_service(name: str) -> str:
    """The headless service, by which members find each other before they are ready."""
    return f"{name}-members"


def pod_name(name: str, number: int | str) -> str:
    return f"{name}-{number}"


def claim_name(name: str, number: int) -> str:
    """The volume claim of a member, as a StatefulSet names it."""
    return f"{DATA}-{pod_name(name, number)}"


def selector(name: str) -> dict[str, str]:
    """The labels by which the pods of a cluster are found. They never change: a StatefulSet's can't."""
    return {"app.kubernetes.io/name": CONTAINER, "app.kubernetes.io/instance": name}


def labels(name: str, image: str = "") -> dict[str, str]:
    """The labels of each object. ``image``: of the one that has it; its tag is the version."""
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    version = {"app.kubernetes.io/version": tag} if _VERSION.fullmatch(tag) else {}
    return {
        **selector(name),
        "app.kubernetes.io/managed-by": MANAGER,
        LABEL_NAME.replace(".name", "/name"): name,
    } | version


def of_profile(profile_name: str) -> dict[str, str]:
    """The annotations of each object: labels can't hold every path."""
    return {LABEL_PROFILE.replace(".profile", "/profile"): profile_name}


def made(
    kind: str, api: str, name: str, *, labels: Mapping[str, str], annotations: Mapping[str, str], **rest: Any
) -> Manifest:
    """One object."""
    metadata = {"name": name, "labels": dict(labels), "annotations": dict(annotations)}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}
