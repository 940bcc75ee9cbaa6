"""Asking two things at once: what waits for a process, a socket or an import leaves the processor to others."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

NAME = "deployer-background"
"""Of the threads."""


def meanwhile(call: Callable[[], T]) -> Future[T]:
    """Run ``call`` in a thread that never keeps this program from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name=NAME, daemon=True).start()
    return future
