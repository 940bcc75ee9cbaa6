"""Ask the upstreams from a bridged container and from this host, and remember what came of it.

A throw-away container is removed by the engine when it ends, which it does by itself; what a kill left all the same is
removed by the next one, which has the same name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
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
from deployer.spec import ContainerSpec, EngineName, ExecResult

_PATIENCE = timedelta(seconds=REACH_SECONDS + 50)
"""For a container to start and end in, on a busy host."""


def measure(
    spec: ContainerSpec, engine: Engine, urls: Sequence[str], *, ca_file: Path | None, ca_target: str
) -> Measured:
    """Ask ``urls`` as the planned server of ``spec`` would: from one bridged container, and from this host as well when
    that did not get everything. Raises EngineUnreachable, ImageUnavailable, Locked.
    """
    bridge = from_bridge(spec, engine, urls, ca_target=ca_target)
    if bridge.answers and all(answer.ok for answer in bridge.answers):
        return Measured(bridge=bridge)
    # A container knows the server's own default; this host need not have devpi-server.
    known = [answer.url for answer in bridge.answers if answer.url] or list(urls)
    return Measured(bridge=bridge, host=from_host(spec, known, ca_file=ca_file, ca_target=ca_target))


def from_bridge(spec: ContainerSpec, engine: Engine, urls: Sequence[str], *, ca_target: str) -> Vantage:
    """Ask ``urls`` from one bridged throw-away container. Raises EngineUnreachable, ImageUnavailable, Locked."""
    # One at a time: they have one name, by which what a killed run has left is found.
    with hold(_lock(spec.name), wait=_PATIENCE.total_seconds()):
        return _from(engine, reach_spec(spec, tuple(urls), ca_target=ca_target))


def _lock(name: str) -> str:
    return f"{name}/reach"


def under_way(name: str) -> bool:
    """Whether somebody measures just now."""
    if not state_dir(_lock(name)).exists():
        return False
    try:
        with hold(_lock(name)):
            return False
    except Locked:
        return True


def from_host(spec: ContainerSpec, urls: Sequence[str], *, ca_file: Path | None, ca_target: str) -> Vantage:
    """Ask ``urls`` from this host, with the certificates and the proxy that a server of ``spec`` gets."""
    asking = on_host(reach_spec(spec, tuple(urls), ca_target=ca_target), ca_file=ca_file, ca_target=ca_target)
    return _from(open_engine(EngineName.PROCESS), asking)


def _from(engine: Engine, asking: ContainerSpec) -> Vantage:
    try:
        return read(engine.once(asking, timeout=_PATIENCE))
    except (EngineUnreachable, ImageUnavailable):
        raise
    except (EngineError, ConflictError) as error:
        # An engine that can't give a container a bridge says so when it is to start.
        return Vantage(failure=error.message)


def read(done: ExecResult) -> Vantage:
    """What ``reach`` said."""
    try:
        return vantage(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Vantage(failure=f"nothing could be asked: {last}")


def _record(name: str) -> Path:
    return state_dir(name) / "network.json"


def recall(name: str, fingerprint: str) -> Measured | None:
    """What was measured when the network was the one of ``fingerprint``; ``None`` when it was another one."""
    try:
        record = json.loads(_record(name).read_bytes())
        if record["fingerprint"] != fingerprint:
            return None
        host = record["host"]
        return Measured(bridge=vantage(record["bridge"]), host=vantage(host) if host else None)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(name: str, fingerprint: str, measured: Measured) -> None:
    """Keep what was measured, 0600, until the network is another one."""
    write_private(_record(name), json.dumps({"fingerprint": fingerprint, **asdict(measured)}, indent=1) + "\n")


def forget(name: str) -> None:
    """Measure anew the next time."""
    _record(name).unlink(missing_ok=True)
