"""waitress's threads, of which there can be more than it was told while many of them wait."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from inspect import signature
from typing import Any

from waitress.server import create_server
from waitress.task import ThreadedTaskDispatcher

_OURS = "_dispatcher"
"""By this waitress's own tests give it another one."""


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]
    def start_new_thread(self, target: Callable[[int], None], thread_no: int) -> None:
        try:
            super().start_new_thread(target, thread_no)
        except RuntimeError:
            self.threads.discard(thread_no)  # it was counted before it was started
            raise


def growing(count: int, words: dict[str, Any]) -> Callable[[int], None]:
    """Put ``count`` threads into ``words``, what waitress is to be told; what is given back has there be more of them.

    Those that were started stay; there are no more than the system gives. Where waitress takes no threads but its own,
    there are never more.
    """
    if _OURS not in signature(create_server).parameters:
        return lambda threads: None
    ours = _Dispatcher()
    ours.set_thread_count(count)
    words[_OURS] = ours

    def grow(threads: int) -> None:
        if threads > len(ours.threads):
            with contextlib.suppress(RuntimeError):  # so many threads this container or user may not have
                ours.set_thread_count(threads)

    return grow
