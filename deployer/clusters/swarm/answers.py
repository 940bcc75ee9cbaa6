"""What docker tells of services and tasks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployer.clusters.base import Member
from deployer.clusters.swarm import names
from deployer.engines.answers import at
from deployer.engines.shapes import shaped
from deployer.spec import LABEL_NAME, LABEL_SPEC, State

_STATES = {"running": State.RUNNING, "complete": State.STOPPED, "shutdown": State.STOPPED, "remove": State.STOPPED}
_STATES |= dict.fromkeys(("failed", "rejected", "orphaned"), State.RESTARTING)
_GONE = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
_ROLLED_BACK = frozenset({"rollback_started", "rollback_paused", "rollback_completed", "paused"})


@dataclass(frozen=True, kw_only=True)
class Service:
    """A service of a stack. ``part``: its name without the stack's; ``digest``: of all that replaces its tasks."""

    id: str
    part: str
    labels: Mapping[str, str]
    digest: str
    image: str
    replicas: int
    constraint: str
    published: int
    update: str
    """How its last update stands: a state of Swarm's, and a message."""
    failed: bool

    @property
    def ours(self) -> bool:
        return LABEL_NAME in self.labels

    @property
    def number(self) -> int | None:
        """The number of its member; None for a balancer."""
        found = self.labels.get(names.LABEL_MEMBER, "")
        return int(found) if found.isdecimal() else None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task of a service. ``container``: its ID, empty before there is one."""

    id: str
    service: str
    node: str
    container: str
    state: str
    wanted: str
    digest: str
    created: str
    why: str = field(default="")

    @property
    def runs(self) -> bool:
        """Whether it has been found healthy."""
        return self.state == "running" and self.wanted == "running"

    @property
    def gone(self) -> bool:
        """Whether nothing of it runs."""
        return self.state in _GONE


@shaped
def service_of(raw: dict[str, Any], name: str) -> Service:
    """Read one element of ``docker service inspect``."""
    spec = at(raw, "Spec") or {}
    constraints = at(spec, "TaskTemplate", "Placement", "Constraints") or [""]
    ports = at(spec, "EndpointSpec", "Ports") or [{}]
    state = str(at(raw, "UpdateStatus", "State") or "")
    return Service(
        id=str(raw.get("ID") or ""),
        part=str(spec.get("Name") or "").removeprefix(f"{name}_"),
        labels={str(key): str(value) for key, value in (spec.get("Labels") or {}).items()},
        digest=str(at(spec, "TaskTemplate", "ContainerSpec", "Labels", LABEL_SPEC) or ""),
        image=str(at(spec, "TaskTemplate", "ContainerSpec", "Image") or ""),
        replicas=int(at(spec, "Mode", "Replicated", "Replicas") or 0),
        constraint=str(constraints[0]),
        published=int(ports[0].get("PublishedPort") or 0),
        update=": ".join(filter(None, (state, str(at(raw, "UpdateStatus", "Message") or "")))),
        failed=state in _ROLLED_BACK,
    )


@shaped
def task_of(raw: dict[str, Any]) -> Task:
    """Read one element of ``docker inspect --type task``."""
    status = raw.get("Status") or {}
    return Task(
        id=str(raw.get("ID") or ""),
        service=str(raw.get("ServiceID") or ""),
        node=str(raw.get("NodeID") or ""),
        container=str(at(status, "ContainerStatus", "ContainerID") or ""),
        state=str(status.get("State") or ""),
        wanted=str(raw.get("DesiredState") or ""),
        digest=str(at(raw, "Spec", "ContainerSpec", "Labels", LABEL_SPEC) or ""),
        created=str(raw.get("CreatedAt") or ""),
        why=" ".join(str(status.get("Err") or "").split()),
    )


def current(tasks: Iterable[Task]) -> Task | None:
    """The task that stands for a service: one that runs or is to run, else the newest."""
    return max(tasks, key=lambda task: (task.runs, task.wanted == "running", task.created), default=None)


def member_of(service: Service, tasks: Iterable[Task], nodes: Mapping[str, str], name: str) -> Member:
    """A member, by its service and the tasks of it. ``nodes``: names by ID."""
    found = list(tasks)
    task, why = current(found), next((one.why for one in sorted(found, key=_newest) if one.why), "")
    if not service.replicas:
        why = "stopped"
    state = State.STOPPED if not service.replicas or task is None else _STATES.get(task.state, State.CREATED)
    where = nodes.get(task.node, task.node) if task is not None else ""
    return Member(
        number=service.number or 0,
        name=names.full(name, service.part),
        state=state,
        where=" on ".join(filter(None, (task.container[:12] if task is not None else "", where))),
        image=service.image,
        why="" if state is State.RUNNING else why or service.update,
    )


def _newest(task: Task) -> tuple[int, ...]:
    return tuple(-ord(letter) for letter in task.created)
