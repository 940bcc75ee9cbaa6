"""Differences between a planned container and the container that its engine reports. Pure.

A container can change under its labels: ``docker update``, or a new one that somebody made with the same labels.
What an engine does not report, and what a plan leaves to the engine's default, is not compared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from deployer.protocol import parse_size
from deployer.spec import Container, ContainerSpec, Mount, NetworkMode, Port, State

_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
"""The name that an engine gives to a volume of the image."""
_SYSTEMD_UNIT = "PODMAN_SYSTEMD_UNIT"
"""Label of a container that systemd runs: systemd restarts it, and podman does not (podman-systemd.unit(5))."""


def strayed(spec: ContainerSpec, found: Container) -> tuple[str, ...]:
    """List what is not as ``spec`` says, as ``name: current -> planned``. No value of a variable is shown."""
    return tuple(_strayed(spec, found))


def _strayed(spec: ContainerSpec, found: Container) -> Iterator[str]:
    for name, current, planned in (*_settings(spec, found), *_outside(spec, found)):
        if current is not None and current != planned:
            yield f"{name}: {_shown(current)} -> {_shown(planned)}"
    if found.settings.confined is False:
        yield "privileges: more than planned -> none"
    yield from _environment(spec, found)


def _settings(spec: ContainerSpec, found: Container) -> Iterator[tuple[str, object, object]]:
    limits, settings = spec.limits, found.settings
    if _SYSTEMD_UNIT not in found.labels:
        yield "restart policy", settings.restart, spec.restart.removesuffix(":0")
    yield "memory limit", settings.memory, parse_size(limits.memory) if limits.memory else 0
    if limits.pids:  # engines have defaults
        yield "pids limit", settings.pids, limits.pids
    yield "CPU limit", settings.cpus, limits.cpus
    if spec.user:
        yield "user", settings.user, spec.user
    yield "read-only root", settings.read_only, spec.read_only


def _outside(spec: ContainerSpec, found: Container) -> Iterator[tuple[str, object, object]]:
    if spec.build:  # an engine completes the short name of another image
        yield "image", found.image or None, spec.image
    yield "network", found.network, spec.network
    if spec.network is NetworkMode.BRIDGE and (found.state is State.RUNNING or found.ports):
        yield "published ports", sorted(map(_port, found.ports)), sorted(map(_port, spec.ports))
    yield "mounts", _mounts(found.mounts, spec.mounts), sorted(map(_mount, spec.mounts))
    if spec.command:  # an entry point may precede it
        yield "command", found.command[-len(spec.command) :] or None, spec.command


def _environment(spec: ContainerSpec, found: Container) -> Iterator[str]:
    env, planned = found.settings.env, dict(spec.env)
    if env is None:
        return
    for name, value in planned.items():
        if env.get(name) != value:
            yield f"variable {name}: {'another value' if name in env else 'nothing'} -> as planned"
    # Only our own image is known to set none of them itself.
    for name in spec.withheld if spec.build else ():
        if name not in planned and env.get(name):
            yield f"variable {name}: set by the engine's client -> nothing"


def _mounts(found: tuple[Mount, ...], planned: tuple[Mount, ...]) -> list[str]:
    """The mounts of a container, without the volumes of its image that nobody asked for."""
    targets = {mount.target for mount in planned}
    asked = (m for m in found if m.target in targets or not (m.kind == "volume" and _ANONYMOUS.fullmatch(m.source)))
    return sorted(map(_mount, asked))


def _mount(mount: Mount) -> str:
    return f"{mount.source} at {mount.target}{' (read-only)' if mount.read_only else ''}"


def _port(port: Port) -> str:
    return f"{port.host_ip} {port.host_port} to {port.container_port}"


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
