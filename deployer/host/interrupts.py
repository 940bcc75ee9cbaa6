"""Interrupts: the first one ends a run, but never in the middle of a call that would go on without us."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_shields = 0
_came = False


def listen() -> None:
    """Turn each signal that ends a program into one KeyboardInterrupt; what is ignored already stays ignored."""
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
    # A second signal must not cut the roll-back of the first one short: neither here nor in what it starts, which
    # inherits this.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def shielded() -> Iterator[None]:
    """Raise an interrupt that comes in the block at its end only.

    For what can be undone once it is done, and not while it is being done: an engine makes a container that it was
    asked for even when whoever asked has gone, and then there is nothing to remove yet. Keep the block short.
    """
    import threading

    global _shields, _came
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal is ever handled here
        return
    _shields += 1
    try:
        yield
    finally:
        _shields -= 1
        if _came and not _shields:
            _came = False
            _interrupt()
