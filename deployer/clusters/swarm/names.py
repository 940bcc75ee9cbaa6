"""What the objects of one deployment are called in a swarm, and what their labels say. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from deployer.spec import LABEL_PREFIX

NAMESPACE = "com.docker.stack.namespace"
"""The label by which docker knows the objects of a stack."""
LABEL_MEMBER = LABEL_PREFIX + "member"
"""On the service and the volume of a member: its number."""
LABEL_PRIMARY = LABEL_PREFIX + "primary"
"""On each service: the number of the primary."""
LABEL_UUID = LABEL_PREFIX + "uuid"
"""On each member's service: the uuid of the cluster's data. A task reads it when it starts."""

NETWORK = "members"
SECRETS = MEMBERS_SECRET, ROOT_PASSWORD = "members-secret", "root-password"
IDENTITY = "identity"
LONGEST = 45
"""Characters of a deployment's name: docker takes 63 for the name of a service."""


def member(number: int) -> str:
    """The service of a member, and its name in the network."""
    return f"member-{number}"


def balancer(number: int) -> str:
    """The service of the balancer at the node ``number`` of those with members."""
    return f"balancer-{number}"


def full(name: str, part: str) -> str:
    """The name of an object of the deployment ``name`` in the swarm."""
    return f"{name}_{part}"


def versioned(name: str, part: str, version: int) -> str:
    """The name of a secret or config: docker never changes one, so that another value has another name."""
    return f"{full(name, part)}.{version}"


def newest(names: Iterable[str], name: str, part: str) -> int:
    """The highest version of ``part`` among ``names``; 0 without any."""
    shape = re.compile(re.escape(full(name, part)) + r"\.([0-9]{1,9})")
    return max((int(found[1]) for one in names if (found := shape.fullmatch(one))), default=0)


def fits(name: str) -> bool:
    """Whether a deployment's name can begin the names of services: docker takes no _ or - at the ends."""
    return len(name) <= LONGEST and re.fullmatch(r"[A-Za-z0-9](?:[-_]*[A-Za-z0-9]+)*", name) is not None
