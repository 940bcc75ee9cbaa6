"""Password hashing: one hash at a time, because each takes 64 MiB of memory and anybody can cause one.

A slow hash protects a weak password from guessing. Nobody guesses 256 random bits, so a generated password is hashed
with the cheapest parameters. Otherwise every start, which logs in as root, would take 64 MiB and 0.1 s.

Requests that wait for a hash take a thread each, and wrong passwords cost nothing to send. So few may wait, and fewer
for one user; those with the same password wait for one hash. A password that was right before is known by a keyed hash
and does not wait: who logs in with it is answered while somebody tries wrong ones. What was wrong is known for a while,
so that the middleware can have a password verified before devpi's write transaction, of which there is one at a time.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from pyramid.httpexceptions import HTTPServiceUnavailable

_CHEAP = "$argon2id$v=19$m=8,t=1,p=1$"
WAITING = 16
"""Passwords that wait for a slow hash at one time."""
WAITING_FOR_ONE = 3
"""The same for one user."""
REMEMBERED = 1000
"""Passwords that are known by a keyed hash, in memory."""
WRONG_SECONDS = 10.0


def hash_random(password: str) -> str:
    """devpi's form of a password hash, with the cheapest parameters. ``password``: at least 256 random bits."""
    from argon2 import PasswordHasher

    return PasswordHasher(memory_cost=8, time_cost=1, parallelism=1).hash(password)


class TooManyLogins(HTTPServiceUnavailable):  # type: ignore[misc]
    """Too many requests wait for a hash."""

    def __init__(self) -> None:
        super().__init__("too many logins at a time: try again", headers={"Retry-After": "1"})


class _Turns:
    """Who may compute a slow hash: one at a time, with few waiting."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()

    @contextlib.contextmanager
    def wait(self, lane: str) -> Iterator[None]:
        """Wait for the turn. ``lane``: whose password it is. Raises TooManyLogins."""
        with self._lock:
            if self._waiting.total() >= WAITING or self._waiting[lane] >= WAITING_FOR_ONE:
                raise TooManyLogins
            self._waiting[lane] += 1
        try:
            with self.turn:
                yield
        finally:
            with self._lock:
                self._waiting[lane] -= 1
                self._waiting += Counter()  # without those that wait no more


class OneAtATime:
    """devpi's password context, for one thread at a time.

    devpi verifies the password of a request in that request's thread: a few dozen anonymous requests with wrong
    passwords would exceed the memory limit of a container, and it would be OOM-killed.
    """

    def __init__(self, context: Any) -> None:
        self._context = context
        self._turns = _Turns()
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._until: OrderedDict[bytes, float] = OrderedDict()
        """Until when a password is wrong (monotonic); infinity for a right one."""
        self._under_way: dict[bytes, Future[tuple[bool, str | None]]] = {}

    def hash(self, secret: str) -> str:
        with self._turns.turn:  # only users of this server get here
            return str(self._context.hash(secret))

    def verify_and_update(self, secret: str, known: str) -> tuple[bool, str | None]:
        if known.startswith(_CHEAP):  # cheap on purpose: not to be replaced by a slow hash
            return bool(self._context.verify(secret, known)), None
        digest = hmac.digest(self._key, f"{known}\0{secret}".encode(errors="surrogatepass"), "sha256")
        with self._lock:
            until = self._until.get(digest, 0.0)
            if until > time.monotonic():
                self._until.move_to_end(digest)
                return until == float("inf"), None
            found = self._under_way.get(digest)
            if found is None:
                mine = self._under_way[digest] = Future()
        return found.result() if found is not None else self._verify(mine, digest, secret, known)

    def _verify(
        self, mine: Future[tuple[bool, str | None]], digest: bytes, secret: str, known: str
    ) -> tuple[bool, str | None]:
        try:
            with self._turns.wait(known):
                valid, update = self._context.verify_and_update(secret, known)
            if update is None:
                self._remember(digest, float("inf") if valid else time.monotonic() + WRONG_SECONDS)
            mine.set_result((bool(valid), update))
        except BaseException as error:  # raised for all who wait for it
            mine.set_exception(error)
        finally:
            with self._lock:
                del self._under_way[digest]
        return mine.result()

    def _remember(self, digest: bytes, until: float) -> None:
        with self._lock:
            self._until[digest] = until
            if len(self._until) > REMEMBERED:
                # Wrong ones go first: nobody who guesses makes the server forget who has logged in.
                wrong = (known for known, until in self._until.items() if until < float("inf"))
                del self._until[next(wrong, next(iter(self._until)))]


def install() -> None:
    """Replace devpi's password context."""
    from devpi_server import auth

    auth.pwd_context = OneAtATime(auth.pwd_context)
