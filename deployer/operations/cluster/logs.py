"""The logs of members, each line with the number of its member before it."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster


def lines(cluster: Cluster, numbers: Sequence[int], *, since: str, tail: int | None) -> Iterator[str]:
    """The log of each member, one after the other. Raises EngineError."""
    for number in numbers:
        for line in cluster.logs(number, since=since, tail=tail):
            yield f"{number} {line}"


def followed(cluster: Cluster, numbers: Sequence[int], *, since: str, tail: int | None) -> Iterator[str]:
    """The logs as they are written, until all members have stopped."""
    written: queue.Queue[str | None] = queue.Queue()

    def read(number: int) -> None:
        try:
            for line in cluster.logs(number, follow=True, since=since, tail=tail):
                written.put(f"{number} {line}")
        finally:
            written.put(None)

    for number in numbers:
        Thread(target=read, args=(number,), name=f"log {number}", daemon=True).start()
    left = len(numbers)
    while left:
        line = written.get()
        if line is None:
            left -= 1
        else:
            yield line
