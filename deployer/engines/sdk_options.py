"""A spec as arguments of the ``docker`` package. Pure.

They mean the same as ``templates/run/docker.j2``: a test compares the containers that both create.
"""

from __future__ import annotations

from typing import Any

from deployer.spec import ContainerSpec, Limits, Mount, NetworkMode


def host_options(spec: ContainerSpec) -> dict[str, Any]:
    """The keyword arguments of docker-py's ``create_host_config`` for ``spec``."""
    from docker.types import LogConfig
    from docker.types import Mount as DockerMount

    from deployer.render import volume

    log = {"max-file": str(spec.log_max_files)} | ({"max-size": spec.log_max_size} if spec.log_max_size else {})
    options: dict[str, Any] = {
        "mounts": [
            DockerMount(target=mount.target, source=mount.source, type=mount.kind, read_only=mount.read_only)  # type: ignore[arg-type]
            for mount in spec.mounts
            if not _as_bind(mount)
        ],
        "binds": [volume(mount) for mount in spec.mounts if _as_bind(mount)] or None,
        "tmpfs": dict(text.partition(":")[::2] for text in spec.tmpfs),
        "network_mode": "host" if spec.network is NetworkMode.HOST else "default",
        "port_bindings": {port.container_port: (port.host_ip, port.host_port) for port in spec.ports},
        "read_only": spec.read_only,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "restart_policy": _restart(spec.restart),
        "log_config": LogConfig(type=LogConfig.types.JSON, config=log),
    }
    return options | _limits(spec.limits)


def _limits(limits: Limits) -> dict[str, Any]:
    from docker.types import Ulimit

    ulimits = (("nofile", limits.nofile), ("nproc", limits.nproc))
    options: dict[str, Any] = {
        "ulimits": [Ulimit(name=name, soft=number, hard=number) for name, number in ulimits if number]
    }
    if limits.memory:
        options |= {"mem_limit": limits.memory, "memswap_limit": limits.memory}
    if limits.pids:
        options["pids_limit"] = limits.pids
    if limits.cpus:
        options["nano_cpus"] = round(limits.cpus * 1e9)
    return options


def _as_bind(mount: Mount) -> bool:
    """A mount has no SELinux label, and podman's API ends its path at a comma. A bind has neither problem."""
    return mount.relabel or (mount.kind == "bind" and "," in mount.source)


def _restart(policy: str) -> dict[str, Any]:
    name, _, count = policy.partition(":")
    return {"Name": "" if name == "no" else name, "MaximumRetryCount": int(count or 0)}
