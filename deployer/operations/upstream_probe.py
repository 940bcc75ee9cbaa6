"""Ask the upstreams from a bridged container and from this host, and remember the result.

The engine removes the throw-away container when it ends. The next probe has the same name and removes a leftover.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path

from deployer.deployment.lock import hold
from deployer.engines import open_engine
from deployer.engines.base import Engine
from deployer.errors import ConflictError, EngineError, EngineUnreachable, ImageUnavailable, Locked
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.plan.facts import Measured, Vantage
from deployer.plan.network import REACH_SECONDS, on_host, reach_spec, vantage
from deployer.protocol import parsed
from deployer.spec import ContainerSpec, EngineName, ExecResult
from deployer.typed import built

_TIMEOUT = timedelta(seconds=REACH_SECONDS + 50)
"""Limit of one probe: start, requests and end of a container on a busy host."""


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A measurement and the fingerprint of its network."""

    fingerprint: str
    bridge: object
    host: object = None


def measure(
    spec: ContainerSpec, engine: Engine, urls: Sequence[str], *, ca_file: Path | None, ca_target: str
) -> Measured:
    """Ask ``urls`` like the planned server of ``spec``: from a bridged container, and if that fails, from this host.

    Raises EngineUnreachable, ImageUnavailable, Locked.
    """
    bridge = from_bridge(spec, engine, urls, ca_target=ca_target)
    if bridge.answers and all(answer.ok for answer in bridge.answers):
        return Measured(bridge=bridge)
    # Only the container knows devpi-server's default upstream; this host may lack devpi-server.
    known = [answer.url for answer in bridge.answers if answer.url] or list(urls)
    return Measured(bridge=bridge, host=from_host(spec, known, ca_file=ca_file, ca_target=ca_target))


def from_bridge(spec: ContainerSpec, engine: Engine, urls: Sequence[str], *, ca_target: str) -> Vantage:
    """Ask ``urls`` from one bridged throw-away container. Raises EngineUnreachable, ImageUnavailable, Locked."""
    # One at a time: the fixed name lets the next probe find a leftover.
    with hold(_lock(spec.name), wait=_TIMEOUT.total_seconds()):
        return _from(engine, reach_spec(spec, tuple(urls), ca_target=ca_target))


def _lock(name: str) -> str:
    return f"{name}/reach"


def under_way(name: str) -> bool:
    """Whether a probe of ``name`` runs now."""
    if not state_dir(_lock(name)).exists():
        return False
    try:
        with hold(_lock(name)):
            return False
    except Locked:
        return True


def from_host(spec: ContainerSpec, urls: Sequence[str], *, ca_file: Path | None, ca_target: str) -> Vantage:
    """Ask ``urls`` from this host, with the CA bundle and the proxy of ``spec``."""
    asking = on_host(reach_spec(spec, tuple(urls), ca_target=ca_target), ca_file=ca_file, ca_target=ca_target)
    return _from(open_engine(EngineName.PROCESS), asking)


def _from(engine: Engine, asking: ContainerSpec) -> Vantage:
    try:
        return read(engine.once(asking, timeout=_TIMEOUT))
    except (EngineUnreachable, ImageUnavailable):
        raise
    except (EngineError, ConflictError) as error:
        # An engine without a working bridge fails at the start of the container.
        return Vantage(failure=error.message)


def read(done: ExecResult) -> Vantage:
    """Parse the output of the server verb ``reach``."""
    try:
        return vantage(parsed(done.stdout))
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        return Vantage(failure=f"the probe failed: {last}")


def _record(name: str) -> Path:
    return state_dir(name) / "network.json"


def recall(name: str, fingerprint: str) -> Measured | None:
    """Return the recorded measurement; None if the network has another ``fingerprint``."""
    try:
        record = built(_Record, parsed(_record(name).read_bytes()))
        host = vantage(record.host) if record.host is not None else None
        return Measured(bridge=vantage(record.bridge), host=host) if record.fingerprint == fingerprint else None
    except (OSError, ValueError):
        return None


def remember(name: str, fingerprint: str, measured: Measured) -> None:
    """Record a measurement with the ``fingerprint`` of its network, mode 0600."""
    write_private(_record(name), json.dumps({"fingerprint": fingerprint, **asdict(measured)}, indent=1) + "\n")


def forget(name: str) -> None:
    """Delete the recorded measurement."""
    _record(name).unlink(missing_ok=True)
