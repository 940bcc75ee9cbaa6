"""Replace pods in order, and keep one stopped."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deployer.clusters.base import Wanted
from deployer.clusters.kubernetes.kubectl import Kubectl
from deployer.clusters.kubernetes.manifests.names import FENCE, WAITS, pod_name
from deployer.clusters.kubernetes.reading import Pod
from deployer.errors import EngineError, NotReadyError
from deployer.spec import State

_PERIOD = 1.0
"""Seconds between two looks."""
_SYNC = timedelta(hours=1)
"""How long a replaced member may take until it is in sync."""
_FAILING = timedelta(minutes=2)
"""How long the server of a replaced member may fail at each start."""
_OBSERVED = timedelta(minutes=1)
"""How long the controller may take to look at a changed StatefulSet."""


def until(true: Callable[[], bool], timeout: timedelta, otherwise: str) -> None:
    """Wait. Raises NotReadyError."""
    deadline = time.monotonic() + timeout.total_seconds()
    while not true():
        if time.monotonic() > deadline:
            raise NotReadyError(f"{otherwise} after {timeout.total_seconds():.0f} s", hint="deployer status")
        time.sleep(_PERIOD)


def order(stale: tuple[Pod, ...], primary: int, *, first: bool) -> tuple[Pod, ...]:
    """The pods in the order in which they are replaced: replicas from the highest number on, then the primary.

    ``first``: the primary has just become it, so the others have to wait for it.
    """
    return tuple(sorted(stale, key=lambda pod: ((pod.number == primary) != first, -pod.number)))


@dataclass(frozen=True)
class Rollout:
    """The pods of the StatefulSet ``name``."""

    name: str
    kubectl: Kubectl
    pods: Callable[[], tuple[Pod, ...]]

    def replace(self, wanted: Wanted, on_line: Callable[[str], None]) -> bool:
        """Replace the pods of another revision, one after the other; whether there were any. Raises NotReadyError.

        Where the controller does it by itself, this only waits.
        """
        spec = self._observed()
        revision, primary = spec["status"].get("updateRevision", ""), wanted.identity.primary
        stale = tuple(pod for pod in self.pods() if pod.revision != revision)
        moved = any(pod.primary != str(primary) for pod in stale)
        by_itself = spec["spec"]["updateStrategy"]["type"] == "RollingUpdate" and not moved
        for pod in order(stale, primary, first=moved):
            if pod.fenced:
                continue
            on_line(f"{pod.name}: replaced")
            if not by_itself:
                self._delete(pod)
            self._await_next(pod)
        return bool(stale)

    def _await_next(self, former: Pod) -> None:
        """Wait until the next pod of a member is in sync. Raises NotReadyError, early if its server keeps failing."""
        started, failing = time.monotonic(), 0.0
        while True:
            pod = self._of(former.number)
            if pod is not None and pod.uid != former.uid and pod.ready:
                return
            now = time.monotonic()
            fails = pod is not None and pod.uid != former.uid and pod.member.state is State.RESTARTING
            failing = (failing or now) if fails else 0.0
            if now - started > _SYNC.total_seconds() or (failing and now - failing > _FAILING.total_seconds()):
                why = pod.member.why if pod is not None else ""
                raise NotReadyError(
                    f"{former.name} is not in sync after it was replaced{why and f': {why}'}",
                    hint=f"deployer logs --member {former.number}",
                )
            time.sleep(_PERIOD)

    def delete(self, number: int, *, timeout: timedelta) -> None:
        """Delete a pod, and wait until there is another one. Raises NotReadyError."""
        pod = self._of(number)
        if pod is None:
            return
        self._delete(pod)

        def gone() -> bool:
            found = self._of(number)
            return found is not None and found.uid != pod.uid

        until(gone, timeout, f"{pod.name} is still being stopped")

    def fence(self, number: int, *, timeout: timedelta) -> None:
        """Wait until the pod of a member stands at the fence, and delete each one that does not. Raises EngineError."""
        deadline = time.monotonic() + timeout.total_seconds()
        asked = ""
        while (pod := self._of(number)) is None or not self._waits(pod):
            # A pod that was made before its node knew of the fence passes it, and runs; it has another uid.
            if pod is not None and not (pod.leaving or pod.fenced) and pod.uid != asked:
                self._delete(pod)
                asked = pod.uid
            if time.monotonic() > deadline:
                raise self._unfenced(number, pod)
            time.sleep(_PERIOD)

    def _waits(self, pod: Pod) -> bool:
        """Whether it has said that it waits at the fence: it may also just be passing it."""
        return pod.fenced and WAITS in self.kubectl.run("logs", pod.name, f"--container={FENCE}", "--tail=1").stdout

    def _unfenced(self, number: int, pod: Pod | None) -> EngineError:
        name = pod_name(self.name, number)
        if pod is not None and pod.leaving and pod.node:
            return EngineError(
                f"{name} does not stop: its node {pod.node} may not answer, and its server may still run there",
                hint=f"switch the node off, then: kubectl taint node {pod.node} "
                "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
            )
        return EngineError(f"{name} is not stopped", hint=f"kubectl describe pod {name}")

    def _of(self, number: int) -> Pod | None:
        return next((pod for pod in self.pods() if pod.number == number), None)

    def _delete(self, pod: Pod) -> None:
        self.kubectl.ask("delete", "pod", pod.name, "--ignore-not-found", "--wait=false")

    def _observed(self) -> dict[str, Any]:
        """The StatefulSet, once its controller has seen it as it is now."""
        found: dict[str, Any] = {}

        def seen() -> bool:
            nonlocal found
            found = self.kubectl.found("statefulset", self.name) or {}
            status = found.get("status") or {}
            return bool(status.get("updateRevision")) and (
                status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            )

        until(seen, _OBSERVED, f"no controller looks at the StatefulSet {self.name}")
        return found
