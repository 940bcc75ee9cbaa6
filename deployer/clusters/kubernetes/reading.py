"""What Kubernetes reports, in our own words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployer.clusters.base import Identity, Member
from deployer.clusters.kubernetes.manifests.names import (
    CONTAINER,
    FENCE,
    FORMER,
    PRIMARY,
    ROLE,
    STOPPED,
    UUID,
    pod_name,
)
from deployer.errors import EngineError
from deployer.spec import State

Object = Mapping[str, Any]
_STATES = {"CrashLoopBackOff": State.RESTARTING, "Error": State.RESTARTING, "Completed": State.RESTARTING}


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod of the StatefulSet."""

    number: int
    name: str
    uid: str
    revision: str
    primary: str
    """The number of the primary that it was started with."""
    node: str
    leaving: bool
    """Whether it is being deleted."""
    ready: bool
    fenced: bool
    """Whether it must not run, and is at the fence: its server has not been started."""
    member: Member


def identity(config_map: Object) -> Identity:
    """What the ConfigMap remembers. Raises EngineError."""
    data = config_map.get("data") or {}
    try:
        return Identity(primary=int(data[PRIMARY]), uuid=str(data.get(UUID, "")))
    except (KeyError, ValueError):
        name = config_map["metadata"]["name"]
        raise EngineError(
            f"the ConfigMap {name} does not say which member is the primary",
            hint=f'set it: kubectl patch configmap {name} --patch \'{{"data": {{"primary": "0"}}}}\'',
        ) from None


def stopped(config_map: Object) -> frozenset[int]:
    """The numbers of the members that must not run."""
    text = (config_map.get("data") or {}).get(STOPPED) or ""
    return frozenset(int(word) for word in text.split() if word.isdigit())


def former(config_map: Object) -> int:
    """The number of the former primary, which has its data still; -1 without."""
    text = (config_map.get("data") or {}).get(FORMER) or ""
    return int(text) if text.isdigit() else -1


def pods(items: Iterable[Object], name: str, held: frozenset[int]) -> tuple[Pod, ...]:
    """All pods, by their number. ``held``: the members that must not run."""
    found = []
    for item in items:
        number = item["metadata"]["name"].removeprefix(f"{name}-")
        if number.isdigit():
            found.append(_pod(item, int(number), held=int(number) in held))
    return tuple(sorted(found, key=lambda pod: pod.number))


def members(found: Iterable[Pod], *, name: str, size: int, held: frozenset[int]) -> tuple[Member, ...]:
    """All members, also those that have no pod. ``held``: those that must not run."""
    by_number = {pod.number: pod.member for pod in found}
    return tuple(by_number.get(number) or _absent(name, number, held) for number in sorted({*range(size), *by_number}))


def _absent(name: str, number: int, held: frozenset[int]) -> Member:
    state = State.STOPPED if number in held else State.CREATED
    return Member(number=number, name=pod_name(name, number), state=state, where="", why="it has no pod")


def _pod(item: Object, number: int, *, held: bool) -> Pod:
    metadata, status, spec = item["metadata"], item.get("status") or {}, item.get("spec") or {}
    server = _status(status.get("containerStatuses"), CONTAINER)
    fence = _status(status.get("initContainerStatuses"), FENCE)
    leaving = bool(metadata.get("deletionTimestamp"))
    # Each pod passes the fence; a slow machine shows it there.
    fenced = held and "running" in (fence.get("state") or {}) and "waiting" in (server.get("state") or {"waiting": {}})
    state, why = _state(status, server, fence, fenced=fenced)
    node = spec.get("nodeName") or ""
    image = next((one["image"] for one in spec.get("containers") or () if one["name"] == CONTAINER), "")
    name = metadata["name"]
    return Pod(
        number=number,
        name=name,
        uid=metadata.get("uid", ""),
        revision=(metadata.get("labels") or {}).get("controller-revision-hash", ""),
        primary=(metadata.get("annotations") or {}).get(ROLE, ""),
        node=node,
        leaving=leaving,
        ready=not leaving
        and any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ()),
        fenced=fenced and not leaving,
        member=Member(
            number=number,
            name=name,
            state=state,
            where=f"{name} on {node}" if node else name,
            image=image,
            why="it is being stopped" if leaving else why,
        ),
    )


def _status(statuses: Iterable[Object] | None, name: str) -> Object:
    return next((one for one in statuses or () if one.get("name") == name), {})


def _state(status: Object, server: Object, fence: Object, *, fenced: bool) -> tuple[State, str]:
    """The state of a pod's server, and why it does not run."""
    if fenced:
        return State.STOPPED, "stopped by deployer"
    state = server.get("state") or {}
    if "running" in state:
        return State.RUNNING, ""
    last = (server.get("lastState") or {}).get("terminated") or state.get("terminated") or {}
    ended = f", exit code {last['exitCode']} ({last.get('reason', '')})" if "exitCode" in last else ""
    if "terminated" in state:
        return State.STOPPED, f"it ended{ended}"
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason", "")
    if reason in _STATES:
        return _STATES[reason], f"{reason}{ended}"
    before = (fence.get("state") or {}).get("waiting") or {}
    for one in (before, waiting):
        if one.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return State.CREATED, ": ".join(filter(None, (one["reason"], one.get("message", ""))))
    return State.CREATED, next(_unscheduled(status), reason)


def _unscheduled(status: Object) -> Iterator[str]:
    for one in status.get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            yield ": ".join(filter(None, (one.get("reason", ""), one.get("message", ""))))


def differences(diff: str) -> tuple[str, ...]:
    """The changed lines of ``kubectl diff``, each with its object; of a new object one line."""
    found: list[str] = []
    where, new = "", False
    for line in diff.splitlines():
        if line.startswith("diff "):
            # The last word is a file of this form: …/GROUP.VERSION.KIND.NAMESPACE.NAME
            parts = line.rpartition("/")[2].split(".")
            where, new = " ".join(_kind_and_name(parts)), False
        elif line.startswith("@@ -0,0 "):
            found.append(f"{where}: + made")
            new = True
        elif line.startswith(("+++ ", "--- ")):
            continue
        elif not new and line.startswith(("+", "-")) and not _counted(line):
            found.append(f"{where}: {line[0]} {line[1:].strip()}")
    return tuple(found)


def _kind_and_name(parts: list[str]) -> tuple[str, str]:
    """Kinds alone begin with a capital letter; names may have dots."""
    at = next((index for index, part in enumerate(parts) if part[:1].isupper()), 0)
    return parts[at], ".".join(parts[at + 2 :])


def _counted(line: str) -> bool:
    """Whether only the API server writes this line."""
    key = line[1:].strip()
    return key.startswith(("generation:", "resourceVersion:", "uid:", "creationTimestamp:"))


_ENDED = "command terminated with exit code "


def of_command(stderr: str) -> str | None:
    """The stderr of a command that ``kubectl exec`` ran and that failed; None when kubectl itself failed."""
    said, _, last = stderr.rstrip("\n").rpartition("\n")
    if not last.startswith(_ENDED):
        return None
    return said and f"{said}\n"
