"""Files by which other tools run the server, or build and develop with its index; each in its own grammar. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from deployer.spec import ContainerSpec, Mount, NetworkMode

if TYPE_CHECKING:
    from deployer.spec import Port

SERVICE = "devpi"


def commented(lines: Sequence[str], text: str) -> str:
    """``text`` below lines of comment, in a grammar with ``#``."""
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + text


def compose(spec: ContainerSpec) -> str:
    """A Compose file whose one service is the container of ``spec``."""
    import yaml

    volumes = {mount.source: {"name": mount.source} for mount in spec.mounts if mount.kind == "volume"}
    document = {"services": {SERVICE: _service(spec)}, **({"volumes": volumes} if volumes else {})}
    return yaml.safe_dump(escaped(document), sort_keys=False, width=1000)


def _service(spec: ContainerSpec) -> dict[str, Any]:
    limits = spec.limits
    ulimits = {name: value for name in ("nofile", "nproc") if (value := getattr(limits, name))}
    given = {
        "container_name": spec.name,
        "image": spec.image,
        "pull_policy": "never",
        "command": list(spec.command),
        "environment": dict(spec.env) | dict.fromkeys(spec.blanks, ""),
        "labels": dict(spec.all_labels()),
        "network_mode": "host" if spec.network is NetworkMode.HOST else "",
        "ports": [_port(port) for port in spec.ports],
        "volumes": [_volume(mount) for mount in spec.mounts],
        "tmpfs": list(spec.tmpfs),
        "user": spec.user,
        "userns_mode": spec.userns,
        "read_only": spec.read_only,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,
        "pids_limit": limits.pids,
        "cpus": limits.cpus,
        "ulimits": ulimits,
        "restart": spec.restart,
        "stop_signal": spec.stop_signal,
        "stop_grace_period": f"{spec.stop_timeout.total_seconds():.0f}s",
        "logging": {"driver": "json-file", "options": _log_options(spec)},
    }
    return {key: value for key, value in given.items() if value}


def _port(port: Port) -> dict[str, Any]:
    return {"target": port.container_port, "published": str(port.host_port), "host_ip": port.host_ip, "protocol": "tcp"}


def _volume(mount: Mount) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": mount.kind, "source": mount.source, "target": mount.target}
    if mount.read_only:
        entry["read_only"] = True
    if mount.kind == "bind":
        # Compose would make a missing directory for root.
        entry["bind"] = {"create_host_path": False, **({"selinux": "Z"} if mount.relabel else {})}
    return entry


def _log_options(spec: ContainerSpec) -> dict[str, str]:
    size = {"max-size": spec.log_max_size} if spec.log_max_size else {}
    return {**size, "max-file": str(spec.log_max_files)}


def escaped(value: Any) -> Any:
    """``value`` with every ``$`` of its strings doubled: in a Compose file one begins a variable. Keys are kept."""
    match value:
        case str():
            return value.replace("$", "$$")
        case Mapping():
            return {key: escaped(one) for key, one in value.items()}
        case list() | tuple():
            return [escaped(one) for one in value]
        case _:
            return value


def dockerfile(base: str, variables: Mapping[str, str]) -> str:
    """The beginning of a Dockerfile whose steps install from an index; the image's environment does not keep it.

    ``base``: an image reference. ``variables``: of the clients. Raises ValueError for a value that is no single line.
    """
    return "".join([f"FROM {base}\n", *(f"ARG {name}={docker_word(value)}\n" for name, value in variables.items())])


def docker_word(text: str) -> str:
    """Quote a value in a Dockerfile, where variables are expanded in double quotes, too. Raises ValueError."""
    if not text.isprintable():
        raise ValueError(f"{text!r} has a control character")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def devcontainer(name: str, base: str, variables: Mapping[str, str], *, host: bool) -> str:
    """A ``devcontainer.json`` whose container has the variables. ``host``: it needs the host's network.

    Raises ValueError for a value that the format takes for a variable: it has no way to quote one.
    """
    if any("${" in value for value in (name, base, *variables.values())):
        raise ValueError("devcontainer.json can't hold ${ as text")
    network = {"runArgs": ["--network=host"]} if host else {}
    document = {"name": name, "image": base, **network, "containerEnv": dict(variables)}
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def buildkitd(*, host: bool) -> str:
    """A ``buildkitd.toml``. ``host``: steps of builds need the network of the host to reach the index."""
    import tomlkit

    document = tomlkit.document()
    if host:
        document["insecure-entitlements"] = ["network.host"]
        worker = tomlkit.table(is_super_table=True)
        for kind in ("oci", "containerd"):
            one = tomlkit.table()
            one["networkMode"] = "host"
            worker[kind] = one
        document["worker"] = worker
    return tomlkit.dumps(document)
