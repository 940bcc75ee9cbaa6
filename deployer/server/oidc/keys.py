"""The keys with which an issuer signs, fetched from it when they are needed.

The address of an issuer is the profile's, and its keys are taken from the same origin only: nothing that a client sends
becomes an address. Redirects are not followed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from deployer.server.json_text import loads

SECONDS = 5.0
"""Timeout of each step of a request."""
WHOLE = 10.0
"""Seconds for one request as a whole, between two pieces of its body."""
LARGEST = 256 * 1024
"""Bytes of one answer."""
MOST = 100
"""Keys of one issuer."""
FRESH = 600.0
"""Seconds for which keys are believed without asking again."""
STALE = 3600.0
"""The same while the issuer does not answer."""
AGAIN = 30.0
"""Seconds until the issuer is asked again, after an unknown key or a failure: clients can cause both."""
WAITING = 8
"""Requests that wait for one issuer."""

Fetch = Callable[[str], Any]


class Unavailable(Exception):
    """The keys of an issuer can't be had now; the message says why."""


class UnknownKey(Exception):
    """The issuer has no such key."""


class Keys:
    """The keys of ``issuer``. ``fetch``: returns the JSON at an address. Raises Unavailable."""

    def __init__(self, issuer: str, fetch: Fetch | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch or get_json, clock
        self._turn, self._waiting = threading.Lock(), threading.BoundedSemaphore(WAITING)
        self._keys: Mapping[str, Mapping[str, Any]] = {}
        self._since = self._asked = -STALE
        self._failure = ""

    def find(self, name: str) -> Mapping[str, Any]:
        """The key (JWK) of this name (``kid``). Raises UnknownKey, Unavailable."""
        if (known := self._keys.get(name)) is not None and self._age < FRESH:
            return known
        with self._alone():
            if (name not in self._keys or self._age >= FRESH) and self._clock() - self._asked >= AGAIN:
                self._ask()
        known = self._keys.get(name)
        if known is not None and self._age < STALE:
            return known
        if self._failure:
            raise Unavailable(self._failure)
        raise UnknownKey(name)

    @property
    def _age(self) -> float:
        return self._clock() - self._since

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._waiting.acquire(blocking=False):
            raise Unavailable(f"too many requests wait for {self._issuer}")
        try:
            with self._turn:
                yield
        finally:
            self._waiting.release()

    def _ask(self) -> None:
        self._asked = self._clock()
        try:
            self._keys = self._fetched()
        except Unavailable as error:
            self._failure = str(error)
        else:
            self._failure, self._since = "", self._clock()

    def _fetched(self) -> Mapping[str, Mapping[str, Any]]:
        about = self._fetch(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        address = about.get("jwks_uri") if isinstance(about, dict) else None
        if about.get("issuer") != self._issuer if isinstance(about, dict) else True:
            raise Unavailable(f"{self._issuer} says that it is another issuer")
        if not isinstance(address, str) or _origin(address) != _origin(self._issuer):
            raise Unavailable(f"{self._issuer} has its keys elsewhere")
        found = self._fetch(address)
        listed = found.get("keys") if isinstance(found, dict) else None
        if not isinstance(listed, list) or len(listed) > MOST:
            raise Unavailable(f"{address} is no list of at most {MOST} keys")
        return {
            key["kid"]: key for key in reversed(listed) if isinstance(key, dict) and isinstance(key.get("kid"), str)
        }


def _origin(url: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return None


def get_json(url: str) -> Any:
    """The JSON at ``url``, within bounds. Raises Unavailable."""
    until, body = time.monotonic() + WHOLE, bytearray()
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    try:
        with (
            httpx.Client(timeout=SECONDS, follow_redirects=False) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise Unavailable(f"{url} answered {response.status_code}")
            for piece in response.iter_raw():
                body += piece
                if len(body) > LARGEST:
                    raise Unavailable(f"{url} answered more than {LARGEST} bytes")
                if time.monotonic() > until:
                    raise Unavailable(f"{url} did not answer within {WHOLE:.0f} seconds")
        return loads(bytes(body))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Unavailable(f"{url} did not answer: {type(error).__name__}") from None
    except ValueError:
        raise Unavailable(f"{url} answered no JSON") from None
