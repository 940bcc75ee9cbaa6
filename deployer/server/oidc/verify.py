"""Verify the ID token of a job: who signed it, for whom, and until when."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from deployer.server.oidc.keys import Keys, UnknownKey
from deployer.server.oidc.rules import Rules

ALGORITHMS = {"RSA": ("RS256", "RS384", "RS512"), "EC": ("ES256", "ES384")}
"""By type of key. A shared secret signs nothing here, so a public key can't be used as one."""
_PUBLIC = ("kty", "crv", "n", "e", "x", "y")
SMALLEST_RSA = 2048
LONGEST = 8_000
"""Characters of a token: nginx asks for a user before it reads a body of 10,000."""
LEEWAY = 30
"""Seconds by which two clocks may differ."""
REMEMBERED = 10_000
"""ID tokens that were exchanged and are still valid."""
_INVALID = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)


class Invalid(Exception):
    """The ID token is not valid; the message says why, without the token."""


class Verifier:
    """``keys_of``: the keys of an issuer of the rules."""

    def __init__(self, rules: Rules, keys_of: Callable[[str], Keys] = Keys) -> None:
        self._rules = rules
        self._keys = {issuer: keys_of(issuer) for issuer in rules.issuers}

    def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a valid token. Raises Invalid, and Unavailable while its issuer does not answer."""
        if not token.isascii() or len(token) > LONGEST:
            raise Invalid("no JWT")
        try:
            head = jwt.get_unverified_header(token)
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except _INVALID:
            raise Invalid("no JWT") from None
        keys = self._keys.get(issuer) if isinstance(issuer, str) else None
        if keys is None:
            raise Invalid("no rule for its issuer")
        algorithm, name = head.get("alg"), head.get("kid")
        if algorithm not in [one for names in ALGORITHMS.values() for one in names]:
            raise Invalid("its algorithm is not allowed")
        if not isinstance(name, str):
            raise Invalid("no name of a key (kid)")
        try:
            key = _key(keys.find(name), algorithm)
        except UnknownKey:
            raise Invalid("its key is unknown") from None
        try:
            found: Mapping[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._rules.audiences(str(issuer)),
                issuer=issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except _INVALID as error:
            raise Invalid(str(error)[:200]) from None
        return found


def _key(found: Mapping[str, Any], algorithm: str) -> Any:
    """The public key for an algorithm. Raises Invalid."""
    kind = found.get("kty")
    if algorithm not in ALGORITHMS.get(str(kind), ()) or found.get("alg", algorithm) != algorithm:
        raise Invalid("its key is for another algorithm")
    if found.get("use", "sig") != "sig":
        raise Invalid("its key does not sign")
    try:
        key = jwt.PyJWK({name: found[name] for name in _PUBLIC if name in found}, algorithm).key
    except (*_INVALID, KeyError):
        raise Invalid("its key is invalid") from None
    if kind == "RSA" and key.key_size < SMALLEST_RSA:
        raise Invalid(f"its key has less than {SMALLEST_RSA} bits")
    return key


class Exchanged:
    """ID tokens that were exchanged: each is, once. Forgotten at a restart; their own lifetime limits them, too."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._until: dict[bytes, float] = {}

    def first(self, token: str, expires: float) -> bool:
        """Whether ``token`` was not exchanged before. ``expires``: seconds since 1970."""
        # What is signed: a signature may have several spellings.
        digest = hashlib.sha256(token.rpartition(".")[0].encode()).digest()
        with self._lock:
            now = self._clock()
            if len(self._until) >= REMEMBERED:
                self._until = {known: until for known, until in self._until.items() if until > now}
            if digest in self._until or len(self._until) >= REMEMBERED:
                return False
            self._until[digest] = expires + LEEWAY
            return True
