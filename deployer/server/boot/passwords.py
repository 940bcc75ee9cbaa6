"""Passwords: one at a time, for each derivation takes 64 MiB for a moment and anybody may ask for one.

Stretching makes the guessing of a weak password expensive. Nobody guesses 256 random bits, so one that was drawn here
is hashed without: else every start, which logs in as root, would take those 64 MiB and a tenth of a second.
"""

from __future__ import annotations

import threading
from typing import Any

from deployer.server.refusal import unfit

_UNSTRETCHED = "$argon2id$v=19$m=8,t=1,p=1$"


def hash_random(password: str) -> str:
    """The hash of a password of at least 256 random bits, as devpi keeps it, made at no cost."""
    from argon2 import PasswordHasher

    return PasswordHasher(memory_cost=8, time_cost=1, parallelism=1).hash(password)


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
            if known.startswith(_UNSTRETCHED):  # as it should be, so there is nothing to update
                return bool(self._context.verify(secret, known)), None
            valid, update = self._context.verify_and_update(secret, known)
            return bool(valid), update


def serialise() -> None:
    """Put it in the place of devpi's own, once. Raises Refusal when devpi has none."""
    from devpi_server import auth

    if not hasattr(auth, "pwd_context"):
        raise unfit("hashes passwords in another way")
    if not isinstance(auth.pwd_context, OneAtATime):
        auth.pwd_context = OneAtATime(auth.pwd_context)
