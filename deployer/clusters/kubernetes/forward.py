"""A way from this host to a pod, as long as it is needed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from threading import Thread

from deployer.clusters.kubernetes.kubectl import Kubectl
from deployer.errors import EngineUnreachable

_FORWARDING = re.compile(r"Forwarding from (127\.0\.0\.1:[0-9]+) -> ")
_PATIENCE = 30.0
"""Seconds until it listens."""


@contextmanager
def forwarded(kubectl: Kubectl, target: str, port: int) -> Iterator[str]:
    """Forward a free port of this host's loopback to ``port`` of a pod or service; yield its URL.

    Raises EngineUnreachable.
    """
    told: Queue[str | None] = Queue()
    with kubectl.beside("port-forward", "--address=127.0.0.1", target, f":{port}") as lines:

        def read() -> None:
            for line in lines:  # to the end: it says a line for each connection
                told.put(line)
            told.put(None)

        Thread(target=read, name="deployer-port-forward", daemon=True).start()
        yield f"http://{_address(told, target)}"


def _address(told: Queue[str | None], target: str) -> str:
    said = "no answer"
    while True:
        try:
            line = told.get(timeout=_PATIENCE)
        except Empty:
            line = None
        if line is None:
            raise EngineUnreachable(f"kubectl port-forward to {target}: {said}", hint=f"kubectl describe {target}")
        if found := _FORWARDING.match(line):
            return found[1]
        said = line
