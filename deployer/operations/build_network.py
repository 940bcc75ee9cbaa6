"""How the steps of a container build reach this host's loopback."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.builds.builders import Builder
from deployer.engines.base import Engine
from deployer.errors import EngineError, Refused, UsageError
from deployer.host.runner import Runner
from deployer.protocol import parsed
from deployer.spec import EngineInfo, EngineName

SHARED = ("host",)
"""Networks in which a step has this host's own loopback."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The builder, and the engine behind it."""

    builder: Builder
    engine: Engine
    info: EngineInfo


@dataclass(frozen=True, kw_only=True)
class Way:
    """``options``: of the builder. ``gateway`` and ``device``: of the bridge that lies between, empty for none."""

    options: tuple[str, ...] = ()
    gateway: str = ""
    device: str = ""

    @contextlib.contextmanager
    def to(self, host: str, port: int) -> Iterator[tuple[str, int]]:
        """The address at which steps reach a server of this host's loopback, for as long as the block runs.

        Raises ConflictError.
        """
        if not self.gateway:
            yield host, port
            return
        from deployer.host.relay import relaying  # it loads asyncio

        with relaying(self.gateway, self.device, port=port, to=(host, port)) as relayed:
            yield self.gateway, relayed


def way_to_loopback(network: str, chosen: Chosen) -> Way:
    """The way from a step in the network that the user chose; empty for the builder's own.

    Raises Refused, UsageError, EngineError where there is none.
    """
    if chosen.info.remote:
        raise Refused(
            f"{chosen.builder.name} builds at {chosen.info.remote}, which does not reach the loopback of this host",
            hint="deployer up --bind ADDRESS --expose",
        )
    where = network or _of_driver(chosen)
    if where in ("", *SHARED):
        return Way(options=() if network else host_options(chosen))
    if where == "none":
        return Way()
    gateway, device = _bridge(where, chosen)
    return Way(gateway=gateway, device=device)


def host_options(chosen: Chosen) -> tuple[str, ...]:
    """The options with which a step has this host's loopback. Raises Refused where that is another one."""
    if chosen.info.rootless and chosen.info.name is not EngineName.PODMAN:
        raise Refused(
            f"a build of the rootless {chosen.builder.name} does not reach the loopback of this host",
            hint="deployer up --bind ADDRESS --expose",
        )
    return chosen.builder.host


def _of_driver(chosen: Chosen) -> str:
    """The network of a buildx builder in a container of its own, which is docker's bridge; empty for any other."""
    if chosen.builder.engine is not EngineName.DOCKER or not chosen.builder.secrets:
        return ""
    done = Runner().run(("docker", "buildx", "inspect"))
    driver = re.search(r"^Driver:\s+(\S+)", done.stdout, re.MULTILINE)
    return "bridge" if driver is not None and driver[1] == "docker-container" else ""


def _bridge(network: str, chosen: Chosen) -> tuple[str, str]:
    """The gateway of a network of the engine, and the device on this host that has it. Raises UsageError."""
    from deployer.host.relay import device_of

    client = str(chosen.info.name)
    named = {"default": "podman" if chosen.info.name is EngineName.PODMAN else "bridge"}.get(network, network)
    done = Runner().run((client, "network", "inspect", named))
    if done.returncode:
        raise EngineError(f"{client} network inspect {named}: {done.stderr.strip()}", hint="add --network=host")
    for gateway in _gateways(parsed(done.stdout)):
        if device := device_of(gateway):
            return gateway, device
    raise UsageError(
        f"no interface of this host is the gateway of the network {named!r}", hint="add --network=host to the build"
    )


def _gateways(answer: Any) -> Iterator[str]:
    """Every gateway that an engine's answer about a network names."""
    if isinstance(answer, list):
        for one in answer:
            yield from _gateways(one)
    elif isinstance(answer, Mapping):
        for key, value in answer.items():
            if key.lower() == "gateway" and isinstance(value, str):
                yield value
            else:
                yield from _gateways(value)
