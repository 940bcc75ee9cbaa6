"""The balancer of a cluster on this host: a container, or a process, with the deployment's own name. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from deployer.plan import Plan
from deployer.plan.container import TMPFS
from deployer.plan.drift import strayed
from deployer.protocol import BALANCER
from deployer.spec import LABEL_SPEC, Container, ContainerSpec, Port, State

VERB = "balance"
_OWN = f"{BALANCER}:rw,noexec,nosuid,nodev,size=16m,mode=1777"


def balancer_spec(plan: Plan, urls: Sequence[str], *, primary: int, directory: Path) -> ContainerSpec:
    """The balancer at the address of ``plan``, before the members at ``urls``.

    ``directory``: of a process; a container has one in memory.
    """
    spec, inside = plan.spec, plan.engine.features.containers
    bind, port = _option(spec.command, "--host"), int(_option(spec.command, "--port"))
    words = [VERB, "--serverdir", BALANCER if inside else str(directory)]
    words += ["--listen", f"[{bind}]:{port}" if ":" in bind else f"{bind}:{port}", "--primary", str(primary)]
    words += [word for url in urls for word in ("--member", urlsplit(url).netloc)]
    words += ["--wait", str(300 + 4 * int(_option(spec.command, "--request-timeout")))]
    return replace(
        spec,
        command=tuple(words),
        mounts=(),
        env=(),
        tmpfs=(TMPFS, _OWN) if inside else (),
        ports=() if inside else (Port(host_ip=bind, host_port=port, container_port=port),),
        stop_signal="SIGQUIT",
    )


def is_balancer(container: Container) -> bool:
    """Whether a container is a balancer, and no server."""
    return VERB in container.command


def runs_as(spec: ContainerSpec, container: Container | None) -> bool:
    """Whether a container runs, and was made from ``spec``."""
    return (
        container is not None
        and container.state is State.RUNNING
        and container.labels.get(LABEL_SPEC) == spec.sha256()
        and not strayed(spec, container)
    )


def _option(words: Sequence[str], name: str) -> str:
    return words[words.index(name) + 1]
