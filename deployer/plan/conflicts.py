"""Conflicts about the name or the port on this host, and the server's URL."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from deployer.errors import ConflictError, EngineError
from deployer.plan.facts import Facts, PortFacts
from deployer.spec import LABEL_USER, EngineInfo, NetworkMode


def check_owner(facts: Facts, *, name: str) -> None:
    """Raise ConflictError when the name belongs to a container that is not ours, or to another user's deployment."""
    if facts.current is not None and not facts.current.ours:
        raise ConflictError(
            f"a container named {name!r} exists and is not deployer's",
            hint="choose another name with --name, or remove that container",
        )
    if facts.current is not None and facts.current.of_another(facts.uid):
        raise ConflictError(
            f"the deployment {name!r} on this engine belongs to uid {facts.current.labels[LABEL_USER]}",
            hint="choose another name with --name, or run it as that user",
        )


def check_port(facts: Facts, mode: NetworkMode) -> None:
    """Raise ConflictError when the server can't listen at its address and port."""
    _check_port(facts, facts.port, mode, option="--port N")
    if facts.tls_port is not None:
        _check_port(facts, facts.tls_port, mode, option="--set network.tls.port=N")


def _check_port(facts: Facts, wanted: PortFacts, mode: NetworkMode, *, option: str) -> None:
    if wanted.absent:
        other = "127.0.0.1" if ":" in wanted.absent else "::1"
        raise ConflictError(
            f"this host has no address {wanted.absent}",
            hint=f"--bind {other}, or another address from 'ip addr'",
        )
    engine, port = facts.engine, wanted.number
    inside = engine.features.containers
    root_listens = mode is NetworkMode.BRIDGE and not engine.rootless if inside else facts.uid == 0
    if wanted.privileged and not root_listens:
        who = f"a rootless {engine.name}" if engine.rootless else "a server without root"
        raise ConflictError(
            f"port {port} is privileged, and {who} can't listen on it",
            hint=f"choose a higher port with {option}, or: sudo sysctl net.ipv4.ip_unprivileged_port_start={port}",
        )
    if not wanted.free:
        holder = f" by {wanted.holder}" if wanted.holder else ""
        raise ConflictError(
            f"port {port} is taken{holder}",
            hint=f"free the port, or choose another with {option} (0: any free port)",
        )


def base_url(bind: IPv4Address | IPv6Address, port: int, *, scheme: str = "http") -> str:
    """The server's URL on this host. An unspecified address is reached through loopback."""
    address = str(bind)
    if bind.is_unspecified:
        address = "::1" if bind.version == 6 else "127.0.0.1"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def check_here(engine: EngineInfo) -> None:
    """Raise EngineError for an engine on another host: data directory, port and readiness would be there, not here."""
    if engine.remote:
        raise EngineError(
            f"{engine.name}'s engine is at {engine.remote}: data and port of the server would be on that host, "
            "where they can't be checked or reached from here",
            hint=f"run deployer on that host, or print a script for it: deployer render --engine {engine.name}",
        )
