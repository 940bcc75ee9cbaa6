"""Logins that a directory answers, bounded: in threads of their own, few at a time, and each within a deadline.

Requests that wait take a thread of the server each. While the directory does not answer, others are refused at once.
What it answered is known for a while, by a keyed hash: a request with a password causes several questions, one of them
inside devpi's write transaction, of which there is one at a time.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from devpi_server.log import threadlog
from pyramid.httpexceptions import HTTPServiceUnavailable

DEADLINE = 10.0
"""Seconds for one login: a search, a bind and a search of groups, with the look-up of the server's name."""
DOWN = 5.0
"""Seconds for which the directory is not asked again after it did not answer."""
ASKING = 8
"""Questions to the directory at one time."""
WAITING = 16
"""Requests that wait for the directory at one time."""
RIGHT, WRONG = 60.0, 10.0
"""Seconds for which an answer is known."""
REMEMBERED = 1000
"""Answers that are known."""
LONGEST = 1024
"""Characters of a name or a password that the directory is asked about."""


class NoAnswer(HTTPServiceUnavailable):  # type: ignore[misc]
    """The directory can't be asked now: 503."""

    def __init__(self, reason: str = "the LDAP directory does not answer: try again") -> None:
        super().__init__(reason, headers={"Retry-After": str(int(DOWN))})
        self.reason = reason


BUSY = "too many logins wait for the LDAP directory: try again"
FAILED = "the login by LDAP failed: the server's log says why"


@dataclass(frozen=True)
class _Known:
    answer: Mapping[str, Any]
    until: float


class Answers:
    """The answers of one directory.

    ``ask(username, password)``: the plugin's question, which may take long or raise. ``silence``: why the directory did
    not answer, of what it raised; empty for another error, which an odd name or password may cause.
    """

    def __init__(
        self,
        ask: Callable[[str, str], Mapping[str, Any]],
        silence: Callable[[Exception], str],
        *,
        deadline: float = DEADLINE,
    ) -> None:
        self._ask, self._silence = ask, silence
        self._deadline = deadline
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, Future[Mapping[str, Any]]] = {}
        self._waiting = 0
        self._down_until = 0.0

    def of(self, username: str, password: str) -> dict[str, Any]:
        """The answer, as devpi-ldap's ``validate`` returns it. Raises NoAnswer."""
        if len(username) > LONGEST or len(password) > LONGEST:
            return {"status": "unknown"}
        digest = hmac.digest(self._key, f"{username}\0{password}".encode(errors="surrogatepass"), "sha256")
        with self._lock:
            known = self._known.get(digest)
            if known is not None and known.until > time.monotonic():
                self._known.move_to_end(digest)
                return dict(known.answer)
            future = self._asking.get(digest)
            is_down = time.monotonic() < self._down_until
            if is_down:
                raise NoAnswer
            if self._waiting >= WAITING or (future is None and len(self._asking) >= ASKING):
                raise NoAnswer(BUSY)
            self._waiting += 1
            if future is None:
                future = self._asking[digest] = Future()
                words = (future, digest, username, password)
                threading.Thread(target=self._find, args=words, name="directory", daemon=True).start()
        try:
            return dict(future.result(self._deadline))
        except NoAnswer as error:  # each request needs an instance of its own: it is the response
            raise NoAnswer(error.reason) from None
        except TimeoutError:
            self._failed(digest, future, f"no answer within {self._deadline:g} s")
            raise NoAnswer from None
        finally:
            with self._lock:
                self._waiting -= 1

    def _find(self, future: Future[Mapping[str, Any]], digest: bytes, username: str, password: str) -> None:
        try:
            answer = self._ask(username, password)
        except Exception as error:
            if reason := self._silence(error):
                self._failed(digest, future, reason)
                future.set_exception(NoAnswer())
            else:
                threadlog.error("devpi-ldap failed: %s: %s", type(error).__name__, error)
                self._end(digest, future)
                future.set_exception(NoAnswer(FAILED))
            return
        right = answer.get("status") == "ok"
        with self._lock:
            self._known[digest] = _Known(answer, time.monotonic() + (RIGHT if right else WRONG))
            if len(self._known) > REMEMBERED:
                # Wrong ones go first: nobody who guesses makes the server forget who has logged in.
                wrong = (key for key, known in self._known.items() if known.answer.get("status") != "ok")
                del self._known[next(wrong, next(iter(self._known)))]
        self._end(digest, future)
        future.set_result(answer)

    def _end(self, digest: bytes, future: Future[Mapping[str, Any]]) -> None:
        with self._lock:
            if self._asking.get(digest) is future:
                del self._asking[digest]

    def _failed(self, digest: bytes, future: Future[Mapping[str, Any]], reason: str) -> None:
        """Note that the directory is down, and log it once for as long as it is."""
        self._end(digest, future)
        with self._lock:
            first = time.monotonic() >= self._down_until
            self._down_until = time.monotonic() + DOWN
        if first:
            threadlog.error("the LDAP directory does not answer: %s", reason)
