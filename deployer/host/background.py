"""Run a slow call in the background: one that waits for a process, a socket or an import."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

NAME = "deployer-background"
"""Name of the threads."""


def meanwhile(call: Callable[[], T]) -> Future[T]:
    """Run ``call`` in a daemon thread, which does not delay the exit of this program."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=NAME, daemon=True).start()
    return future
