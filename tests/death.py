"""Let a function die at every moment at which it could change the disk."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tests.client_place import in_child

# Between two of these nothing on the disk changes (`write`, `flush` and `close` are the stream's, too).
STEPS = frozenset(
    [
        "open",
        "write",
        "flush",
        "close",
        "fsync",
        "replace",
        "rename",
        "unlink",
        "mkdir",
        "rmdir",
        "chmod",
        "fchmod",
        "fchown",
        "flock",
        "link",
        "truncate",
        "ftruncate",
        "pwrite",
    ]
)


def calls_until_death(action: Callable[[], object], limit: int) -> int:
    """Do ``action`` in a child that dies just before its ``limit``-th call that may change the disk."""
    count = 0

    def tick(frame: object, event: str, argument: object) -> None:
        nonlocal count
        if event == "c_call" and getattr(argument, "__name__", "") in STEPS:
            count += 1
            if count == limit:
                os._exit(77)

    def run() -> None:
        sys.setprofile(tick)
        try:
            action()
        finally:
            sys.setprofile(None)

    return in_child(run)


def sweep(action: Callable[[], object], check: Callable[[], None], reset: Callable[[], None]) -> int:
    """Let ``action`` die at every step; ``check`` what is left each time. How often it died."""
    limit = 0
    while True:
        limit += 1
        reset()
        code = calls_until_death(action, limit)
        check()
        if code == 0:
            return limit - 1
        assert code == 77
