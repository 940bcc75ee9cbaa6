"""Password hashing: one hash at a time, because each takes 64 MiB of memory and anybody can cause one.

A slow hash protects a weak password from guessing. Nobody guesses 256 random bits, so a generated password is hashed
with the cheapest parameters. Otherwise every start, which logs in as root, would take 64 MiB and 0.1 s.
"""

from __future__ import annotations

import threading
from typing import Any

_CHEAP = "$argon2id$v=19$m=8,t=1,p=1$"


def hash_random(password: str) -> str:
    """devpi's form of a password hash, with the cheapest parameters. ``password``: at least 256 random bits."""
    from argon2 import PasswordHasher

    return PasswordHasher(memory_cost=8, time_cost=1, parallelism=1).hash(password)


class OneAtATime:
    """devpi's password context, for one thread at a time.

    devpi verifies the password of a request in that request's thread: a few dozen anonymous requests with wrong
    passwords would exceed the memory limit of a container, and it would be OOM-killed.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._lock = threading.Lock()

    def hash(self, secret: str) -> str:
        with self._lock:
            return str(self._context.hash(secret))

    def verify_and_update(self, secret: str, known: str) -> tuple[bool, str | None]:
        with self._lock:
            if known.startswith(_CHEAP):  # cheap on purpose: not to be replaced by a slow hash
                return bool(self._context.verify(secret, known)), None
            valid, update = self._context.verify_and_update(secret, known)
            return bool(valid), update


def install() -> None:
    """Replace devpi's password context."""
    from devpi_server import auth

    auth.pwd_context = OneAtATime(auth.pwd_context)
