"""Interrupts: the first one ends a run, but not during a call that would continue without us."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_shields = 0
_came = False


def listen() -> None:
    """Turn SIGINT, SIGTERM and SIGHUP into one KeyboardInterrupt. A signal that is ignored stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _hear)


def _hear(_number: int, _frame: FrameType | None) -> None:
    global _came
    if _shields:
        _came = True
    else:
        _interrupt()


def _interrupt() -> None:
    # A second signal must not abort the rollback, neither here nor in its child processes, which inherit this.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def shielded() -> Iterator[None]:
    """Delay an interrupt in the block to its end. Keep the block short.

    For an effect that can be rolled back only when it is complete: an engine creates a container even if its client
    has gone, and before that there is nothing to remove.
    """
    import threading

    global _shields, _came
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread handles signals
        return
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
        if _came and not _shields:
            _came = False
            _interrupt()


@contextmanager
def passed_on(pid: int) -> Iterator[None]:
    """In the block, let the process ``pid`` decide what an interrupt does.

    A terminal sends SIGINT to all processes of the foreground itself; SIGTERM and SIGHUP are sent on.
    """
    former = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        if number == signal.SIGINT:
            signal.signal(number, lambda _number, _frame: None)
        elif former[number] is not signal.SIG_IGN:
            signal.signal(number, lambda number, _frame: os.kill(pid, number))
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
