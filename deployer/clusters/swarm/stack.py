"""The stack of a deployment: a Compose file, as docker's ``stack deploy`` reads it. Pure.

Each member is a service with one task, and has its own volume at one node: Swarm's volumes are local to a node. A
balancer runs at each of these nodes, and publishes the port there, in host mode. Swarm's own ways to balance do not
fit: its virtual IPs and its ingress spread connections over the tasks of one service, and never try another member; the
ingress hides who the clients are, and both need IPVS in the kernel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deployer.clusters.swarm import names
from deployer.plan.container import EVERY, METRICS_PORT, OWN_DATA, OWN_PORT, serve_command
from deployer.plan.limits import wanted_limits
from deployer.protocol import CLUSTER_UUID, IMAGE_PYTHON
from deployer.spec import LABEL_NAME, LABEL_PROFILE, LABEL_SPEC, LABEL_VERSION

if TYPE_CHECKING:
    from deployer.clusters.base import Wanted
    from deployer.profile.models import Profile

FORMAT = "3.9"
OWN_USER = "3141"
"""The user of our image, who reads the secrets."""
HEALTHY_WITHIN = "5s"
"""Swarm takes a task for running after its first good health check, which the image has only once a minute."""
BALANCER_MEMORY = "128m"
SUBNET = "10.41.31.0/24"
"""The addresses in a rendered stack, whose network is made by hand; ``up`` lets docker choose them."""
TEMPORARY = "/tmp"  # noqa: S108 - inside the container
_TMPFS = {"type": "tmpfs", "target": TEMPORARY, "tmpfs": {"size": 64 << 20}}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What is known of the swarm.

    ``home``: the ID of the node with all members when the profile names no nodes; empty: any manager. ``subnet``: the
    addresses of the network of members. ``secrets``: the version of each secret. ``stopped``: members that stay
    stopped.
    """

    home: str = ""
    subnet: str = SUBNET
    secrets: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(names.SECRETS, 1))
    stopped: frozenset[int] = frozenset()


def stack(wanted: Wanted, ground: Ground) -> dict[str, Any]:
    """The whole document. Its strings are plain: :func:`text` escapes what docker would take for variables."""
    numbers = range(wanted.size)
    services = {names.member(number): _member(wanted, ground, number) for number in numbers}
    for number, constraint in enumerate(constraints(wanted.profile, ground)):
        services[names.balancer(number)] = _balancer(wanted, constraint)
    for part, service in services.items():
        _labelled(wanted, part, service, ground)
    return {
        "version": FORMAT,
        "services": services,
        "networks": {names.NETWORK: {"external": True, "name": names.full(wanted.name, names.NETWORK)}},
        "volumes": {names.member(number): _volume(wanted, number) for number in numbers},
        "secrets": {
            secret: {"external": True, "name": names.versioned(wanted.name, secret, ground.secrets[secret])}
            for secret in names.SECRETS
        },
    }


def text(document: Mapping[str, Any]) -> str:
    """The document as ``docker stack deploy`` reads it."""
    import yaml

    from deployer.container_files import escaped

    return yaml.dump(escaped(document), Dumper=_plain(), sort_keys=False, width=1000)


def by_hand(wanted: Wanted) -> str:
    """The file for somebody who deploys it without ``deployer up``, and what has to be there before."""
    from deployer.container_files import commented

    ground = Ground()
    made = [
        f"  openssl rand -hex 32 | docker secret create {names.versioned(wanted.name, secret, version)} -"
        for secret, version in ground.secrets.items()
    ]
    network = names.full(wanted.name, names.NETWORK)
    lines = (
        f"The cluster {wanted.name!r} of the profile {wanted.profile_name!r}. Before:",
        *made,
        f"  docker network create --driver overlay --opt encrypted=true --subnet {ground.subnet} {network}",
        f"It starts with: docker stack deploy --compose-file FILE {wanted.name}",
        "Without deployer up, nobody makes users and indexes, and a primary on an empty volume begins anew.",
    )
    return commented(lines, text(stack(wanted, ground)))


def _plain() -> type[Any]:
    import yaml

    class Plain(yaml.SafeDumper):
        """Without anchors: services share nothing that a reader would look up."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    return Plain


def constraints(profile: Profile, ground: Ground) -> tuple[str, ...]:
    """Where members are kept, each node once: a balancer runs at each of them."""
    return tuple(dict.fromkeys(constraint(profile, ground, number) for number in range(profile.cluster.replicas + 1)))


def constraint(profile: Profile, ground: Ground, number: int) -> str:
    """Where a member is kept, in Swarm's words."""
    if profile.swarm.nodes:
        return f"node.hostname == {node_of(profile, number)}"
    return f"node.id == {ground.home}" if ground.home else "node.role == manager"


def node_of(profile: Profile, number: int) -> str:
    """The name of the node that the profile gives a member; empty when it names none."""
    nodes = profile.swarm.nodes
    return nodes[number % len(nodes)] if nodes else ""


def _member(wanted: Wanted, ground: Ground, number: int) -> dict[str, Any]:
    server = wanted.profile.server
    secrets = [
        {"source": secret, "target": secret, "uid": OWN_USER, "gid": OWN_USER, "mode": 0o400}
        for secret in names.SECRETS
    ]
    return {
        **_contained(wanted, member_command(wanted, ground, number)),
        # Swarm fills this in when a task starts, so that a new uuid replaces no task.
        "environment": {CLUSTER_UUID: '{{index .Service.Labels "' + names.LABEL_UUID + '"}}'},
        "healthcheck": {
            "test": ["CMD", *_health()],
            "interval": HEALTHY_WITHIN,
            # Swarm replaces an unhealthy task: never one of a node that is only slow for a while.
            "timeout": "20s",
            "retries": 12,
            "start_period": "120s",
        },
        # In the order of `docker service update`, which would replace the task for another one.
        "volumes": [_TMPFS, {"type": "volume", "source": names.member(number), "target": OWN_DATA}],
        "secrets": secrets,
        "stop_signal": wanted.profile.image.stop_signal,
        "stop_grace_period": f"{server.stop_timeout}s",
        "deploy": _deploy(
            wanted,
            constraint(wanted.profile, ground, number),
            memory=wanted_limits(wanted.profile).memory,
            replicas=0 if number in ground.stopped else 1,
        ),
    }


def _health() -> tuple[str, ...]:
    return (*IMAGE_PYTHON, "-m", "deployer.server", "health", "--serverdir", OWN_DATA)


def member_command(wanted: Wanted, ground: Ground, number: int) -> tuple[str, ...]:
    """The arguments of one member's server."""
    profile, primary = wanted.profile, wanted.identity.primary
    network, cluster = profile.network, profile.cluster
    named = network.hosts or network.outside_url
    words = serve_command(
        profile,
        directory=OWN_DATA,
        host=EVERY,
        port=OWN_PORT,
        metrics=profile.server.metrics and f"{EVERY}:{METRICS_PORT}",
        marked=False,
        hosts=network.hosts if named else ("*",),
    )
    plugins = [word for pin in profile.server.plugins for word in ("--plugin", pin)]
    options = [word for name, value in profile.server.options.items() for word in ("--option", f"{name}={value}")]
    return (
        *words,
        # Only a balancer tells a member who a client is.
        *("--trusted-proxy", ground.subnet),
        *plugins,
        *options,
        *("--member", str(number), "--primary", str(primary)),
        *("--primary-url", f"http://{names.member(primary)}:{OWN_PORT}"),
        *("--secret-file", f"/run/secrets/{names.MEMBERS_SECRET}"),
        *("--root-password-file", f"/run/secrets/{names.ROOT_PASSWORD}"),
        *("--write-wait", f"{cluster.write_wait:g}"),
        *(() if cluster.replica_upstream else ("--no-replica-upstream",)),
        *(word for index in cluster.files_on_demand for word in ("--files-on-demand", index)),
    )


def balancer_command(wanted: Wanted) -> tuple[str, ...]:
    """The arguments of a balancer."""
    members = (f"{names.member(number)}:{OWN_PORT}" for number in range(wanted.size))
    return (
        *("balance", "--serverdir", f"{TEMPORARY}/balancer", "--listen", f"{EVERY}:{OWN_PORT}"),
        *("--primary", str(wanted.identity.primary)),
        *(word for address in members for word in ("--member", address)),
        *("--wait", str(300 + 4 * wanted.profile.server.request_timeout)),
    )


def _balancer(wanted: Wanted, where: str) -> dict[str, Any]:
    port = wanted.profile.network.port
    return {
        **_contained(wanted, balancer_command(wanted)),
        # Docker asks other name servers for a member that is gone: they may not answer.
        "environment": {"RES_OPTIONS": "timeout:1 attempts:1"},
        # The image's own check fails while no member answers: a new balancer would not help.
        "healthcheck": {"disable": True},
        "volumes": [_TMPFS],
        "ports": [{"target": OWN_PORT, "published": port, "protocol": "tcp", "mode": "host"}],
        "stop_signal": "SIGQUIT",
        "deploy": _deploy(wanted, where, memory=BALANCER_MEMORY, replicas=1),
    }


def _contained(wanted: Wanted, command: tuple[str, ...]) -> dict[str, Any]:
    nofile = wanted_limits(wanted.profile).nofile
    return {
        "image": wanted.image,
        "command": list(command),
        "networks": [names.NETWORK],
        "read_only": True,
        "cap_drop": ["ALL"],
        **({"ulimits": {"nofile": nofile}} if nofile else {}),
    }


def _deploy(wanted: Wanted, where: str, *, memory: str, replicas: int) -> dict[str, Any]:
    limits = wanted_limits(wanted.profile)
    held = {"memory": memory, "cpus": f"{limits.cpus:g}" if limits.cpus else "", "pids": limits.pids}
    return {
        "mode": "replicated",
        "replicas": replicas,
        # A service has one task: its name is that task's address, and no virtual IP is needed.
        "endpoint_mode": "dnsrr",
        "placement": {"constraints": [where]},
        "resources": {"limits": {key: value for key, value in held.items() if value}},
        # Two servers never share a directory.
        "update_config": {"parallelism": 1, "order": "stop-first", "failure_action": "rollback"},
        "rollback_config": {"parallelism": 1, "order": "stop-first"},
        "restart_policy": _restart(wanted.profile.server.restart),
    }


def _restart(policy: str) -> dict[str, Any]:
    kind, _, tries = policy.partition(":")
    match kind:
        case "no":
            return {"condition": "none"}
        case "on-failure":
            return {"condition": kind, "delay": "1s", **({"max_attempts": int(tries)} if tries else {})}
        case _:
            return {"condition": "any", "delay": "1s"}


def _volume(wanted: Wanted, number: int) -> dict[str, Any]:
    labels = {LABEL_NAME: wanted.name, names.LABEL_MEMBER: str(number)}
    return {"name": names.full(wanted.name, names.member(number)), "labels": labels}


def _labelled(wanted: Wanted, part: str, service: dict[str, Any], ground: Ground) -> None:
    """Give a service its labels, and its containers the digest of all that replaces them."""
    from deployer import __version__

    told = {**service, "deploy": {**service["deploy"], "replicas": None}}
    digest = hashlib.sha256(json.dumps([told, wanted.build, dict(ground.secrets)], sort_keys=True).encode())
    kind, _, number = part.partition("-")
    service["labels"] = {LABEL_NAME: wanted.name, LABEL_SPEC: digest.hexdigest()}
    service["deploy"]["labels"] = {
        LABEL_NAME: wanted.name,
        LABEL_PROFILE: wanted.profile_name,
        LABEL_VERSION: __version__,
        names.LABEL_PRIMARY: str(wanted.identity.primary),
        **({names.LABEL_MEMBER: number, names.LABEL_UUID: wanted.identity.uuid} if kind == "member" else {}),
    }
