"""waitress's thread pool, which can grow while many of its threads wait for an upstream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from inspect import signature
from typing import Any

from waitress.server import create_server
from waitress.task import ThreadedTaskDispatcher

from deployer.protocol import ThreadsNow

_POOL = "_dispatcher"
"""The argument by which waitress's own tests replace its thread pool."""


class _Pool(ThreadedTaskDispatcher):  # type: ignore[misc]
    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        try:
            super().start_new_thread(target, thread_no)
        except RuntimeError:
            self.threads.discard(thread_no)  # waitress counts a thread before it starts it
            raise


def growing(count: int, settings: dict[str, Any]) -> tuple[Callable[[int], None], Callable[[], bool]]:
    """Put a pool of ``count`` threads into waitress's ``settings``.

    Call the first result to have more threads, the second to know whether requests wait for one.

    Started threads stay. The system's limit is obeyed. A waitress that takes no other pool never has more threads.
    """
    if _POOL not in signature(create_server).parameters:
        return lambda threads: None, lambda: False
    pool = _Pool()
    pool.set_thread_count(count)
    settings[_POOL] = pool

    def grow(threads: int) -> None:
        if threads > len(pool.threads):
            with contextlib.suppress(RuntimeError):  # the limit of this container or user
                pool.set_thread_count(threads)

    return grow, lambda: bool(pool.queue)


def now(settings: dict[str, Any]) -> ThreadsNow:
    """The state of the pool in waitress's ``settings``."""
    pool = settings.get(_POOL)
    if pool is None:
        return ThreadsNow(total=0, busy=0, queued=0)
    return ThreadsNow(total=len(pool.threads), busy=int(pool.active_count), queued=len(pool.queue))
