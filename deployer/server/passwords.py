"""One password at a time: each derivation takes 64 MiB for a moment, and anybody may ask for one."""

from __future__ import annotations

import threading
from typing import Any


class OneAtATime:
    """devpi's password hashing, for one thread at a time.

    devpi verifies what a request's header claims in the thread of that request: a few dozen anonymous requests with a
    wrong password would together take more memory than a container of a reasonable size has, and have it killed.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._turn = threading.Lock()

    def hash(self, secret: str) -> str:
        with self._turn:
            return str(self._context.hash(secret))

    def verify_and_update(self, secret: str, known: str) -> tuple[bool, str | None]:
        with self._turn:
            valid, update = self._context.verify_and_update(secret, known)
            return bool(valid), update


def serialise() -> None:
    """Put it in the place of devpi's own, once."""
    from devpi_server import auth

    if not isinstance(auth.pwd_context, OneAtATime):
        auth.pwd_context = OneAtATime(auth.pwd_context)
