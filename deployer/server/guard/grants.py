"""Who may read an index that not everybody may read, for a few seconds after devpi has said so.

One file for each index and credential, ``<directory>/USER/INDEX/READER``, in the form of ``auth_basic_user_file``:
nginx reads it at each request. It has a salted hash of what was sent, never the password. The hash is a fast one, so
the directory is in memory (:mod:`deployer.server.nginx.memory`).

Every change of a user, a token or an index ends all grants before it is acknowledged. What changes elsewhere, such as
in a directory of users, or with time, such as a token that expires, holds for ``SECONDS`` at most.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deployer.server.secret_files import write_private

SECONDS = 10.0
MOST = 10_000
"""Grants at a time; with more, nobody gets another one until some have ended."""
_BASIC = re.compile(r"Basic ([A-Za-z0-9+/]+=*)")
_READER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
# The end of a long credential, which is of a token's signature: a user may have several tokens in use.
_LONG = re.compile(r"Basic [A-Za-z0-9+/]{60,}([A-Za-z0-9+]{8})=*")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Credential:
    """What a client sends with ``Authorization: Basic``. ``name``: of the file, as nginx makes it of the header."""

    user: str
    password: bytes
    name: str

    @property
    def text(self) -> str:
        """The password as devpi reads it (its auth_basic.py)."""
        try:
            return self.password.decode()
        except UnicodeDecodeError:
            return self.password.decode("latin-1")

    @classmethod
    def parse(cls, header: str) -> Credential | None:
        """The credential in a header; None for one that nginx could read in another way."""
        found = _BASIC.fullmatch(header)
        if found is None or len(header) > 8000:
            return None
        with contextlib.suppress(ValueError):
            user, colon, password = base64.b64decode(found[1], validate=True).partition(b":")
            name = user.decode()
            if colon and _READER.fullmatch(name) and len(name) <= 100:
                tail = _LONG.fullmatch(header)
                return cls(name, password, f"{name}={tail[1]}" if tail else name)
        return None


@dataclass
class _Grant:
    salt: bytes
    digest: bytes
    until: float


class Grants:
    """All grants. ``directory``: where nginx looks; without it, nginx has the server answer.

    Every method may be called from any thread.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._given: dict[Path, _Grant] = {}
        self._at = -1

    def end(self, at: int) -> None:
        """End all grants. ``at``: the serial of the database from which on new ones may be given."""
        with self._lock:
            self._given.clear()
            for place in self._directory.iterdir() if self._directory.is_dir() else ():
                shutil.rmtree(place, ignore_errors=True)
            self._at = at

    def give(self, index: str, credential: Credential, at: int) -> None:
        """Grant ``index`` to this credential. ``at``: the serial that it was judged by."""
        user, _, name = index.partition("/")
        if not _PART.fullmatch(user) or not _PART.fullmatch(name):
            return
        place = self._directory / user / name / credential.name
        with self._lock:
            known = self._given.get(place)
            # Something may have changed since `at`.
            if at != self._at or (known is None and len(self._given) >= MOST):
                return
            if known is not None and _is(credential, known):
                known.until = self._clock() + SECONDS
                return
            salt = secrets.token_bytes(16)
            self._given[place] = granted = _Grant(salt, _digest(credential, salt), self._clock() + SECONDS)
            self._write(place, f"{credential.user}:{{SSHA}}{base64.b64encode(granted.digest + salt).decode()}\n")
            self._wake.notify_all()

    def _write(self, place: Path, line: str) -> None:
        try:
            place.unlink(missing_ok=True)
            if self._directory.is_dir():
                place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_private(place, line, durable=False)
        except OSError:  # the server itself answers
            return

    def holds(self, index: str, credential: Credential, at: int) -> bool:
        """Whether ``index`` is granted to this credential, with the readers of serial ``at``."""
        with self._lock:
            known = self._given.get(self._directory / index / credential.name)
            return at == self._at and known is not None and known.until > self._clock() and _is(credential, known)

    def expire(self) -> None:
        """End the grants whose time is over."""
        with self._lock:
            self._expire()

    def _expire(self) -> None:
        now = self._clock()
        for place in [place for place, grant in self._given.items() if grant.until <= now]:
            with contextlib.suppress(OSError):
                place.unlink(missing_ok=True)
            del self._given[place]

    def watch(self) -> None:
        """End grants when their time is over; runs until the process ends."""
        while True:
            with self._lock:
                self._expire()
                first = min((grant.until for grant in self._given.values()), default=None)
                self._wake.wait(None if first is None else max(first - self._clock(), 0.1))


def _is(credential: Credential, grant: _Grant) -> bool:
    return hmac.compare_digest(_digest(credential, grant.salt), grant.digest)


def _digest(credential: Credential, salt: bytes) -> bytes:
    return hashlib.sha1(credential.password + salt, usedforsecurity=False).digest()
