"""Threads that ask the server, until they are done or the command is interrupted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from deployer.operations.warm.index import Index

T = TypeVar("T")
R = TypeVar("R")


class Each:
    """Calls a function with each of some values."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, work: Callable[[T], R], values: Iterable[T]) -> list[R]:
        """The results, in the order of the values. Raises what the first of them raises."""
        return list(self._pool.map(work, values))


@contextmanager
def threads(index: Index, jobs: int) -> Iterator[Each]:
    """So many threads; after a failure they end what they do with ``index``, and begin nothing new."""
    with ThreadPoolExecutor(jobs, "warm") as pool:
        try:
            yield Each(pool)
        except BaseException:
            index.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
