"""The balancer of a cluster on this host: a container, or a process, with the deployment's own name. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from deployer.operations.cluster.host.derived import GIVEN_TARGET, given_mount
from deployer.plan import Plan
from deployer.plan.container import TMPFS
from deployer.plan.drift import strayed
from deployer.protocol import BALANCER
from deployer.spec import LABEL_SPEC, Container, ContainerSpec, Port, State

VERB = "balance"
NEXT = ".next"
"""Suffix of the name of a balancer that begins while the one before it still runs."""
PEM = "tls.pem"
"""The certificate with its key, in the directory that the balancer is given."""
_OWN = f"{BALANCER}:rw,noexec,nosuid,nodev,size=16m,mode=1777"


def balancer_spec(
    plan: Plan, urls: Sequence[str], *, primary: int, directory: Path, given: Path, relabel: bool
) -> ContainerSpec:
    """The balancer at the address of ``plan``, before the members at ``urls``.

    ``directory``: below which a process has one of its own; a container has one in memory. ``given``: the directory
    with the certificate of HTTPS.
    """
    spec, inside = plan.spec, plan.engine.features.containers
    bind, port = _option(spec.command, "--host"), int(_option(spec.command, "--port"))
    words = ["--listen", f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}", "--primary", str(primary)]
    ports = [Port(host_ip=bind, host_port=port, container_port=port)]
    secure = inside and plan.tls is not None
    if plan.tls is not None:
        words += ["--tls", _option(spec.command, "--tls")]
        words += ["--certificate", f"{GIVEN_TARGET if inside else given}/{PEM}"]
        host, _, number = _option(spec.command, "--tls").rpartition(":")
        ports.append(Port(host_ip=host.strip("[]"), host_port=int(number), container_port=int(number)))
    words += [word for url in urls for word in ("--member", urlsplit(url).netloc)]
    words += ["--wait", str(300 + 4 * int(_option(spec.command, "--request-timeout")))]
    mark = hashlib.sha256(json.dumps([words, spec.image, spec.build]).encode()).hexdigest()[:12]
    own = BALANCER if inside else str(directory / mark)
    return replace(
        spec,
        command=(VERB, "--serverdir", own, *words, "--mark", mark),
        mounts=(given_mount(given, relabel=relabel),) if secure else (),
        env=(),
        tmpfs=(TMPFS, _OWN) if inside else (),
        ports=() if inside else tuple(ports),
        stop_signal="SIGQUIT",
    )


def following(spec: ContainerSpec) -> ContainerSpec:
    """The same under the name that it has until the balancer before it has ended."""
    return replace(spec, name=spec.name + NEXT)


def mark_of(spec: ContainerSpec) -> str:
    """What tells this balancer from others at the same address."""
    return _option(spec.command, "--mark")


def takes_over(spec: ContainerSpec, container: Container) -> bool:
    """Whether both can listen for a moment: ``container`` is a balancer that runs at the address of ``spec``."""
    words = container.command
    return (
        container.state is State.RUNNING
        and is_balancer(container)
        and "--mark" in words
        and _option(words, "--listen") == _option(spec.command, "--listen")
    )


def is_balancer(container: Container) -> bool:
    """Whether a container is a balancer, and no server."""
    return VERB in container.command


def runs_as(spec: ContainerSpec, container: Container | None) -> bool:
    """Whether a container runs, and was made from ``spec``."""
    return (
        container is not None
        and container.state is State.RUNNING
        and container.labels.get(LABEL_SPEC) in {spec.sha256(), following(spec).sha256()}
        and not strayed(spec, container)
    )


def _option(words: Sequence[str], name: str) -> str:
    return words[words.index(name) + 1]
