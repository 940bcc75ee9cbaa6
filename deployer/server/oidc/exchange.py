"""``POST /+deployer/oidc``: a job of CI gives its ID token, and gets a token of this server that lives for minutes.

It is answered above devpi's transactions: while an issuer is asked for its keys, no write of others has to wait.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from devpi_server.log import threadlog
from pyramid.response import Response

from deployer.server.json_text import dumps, loads
from deployer.server.oidc.keys import Unavailable
from deployer.server.oidc.rules import Rules
from deployer.server.oidc.verify import Exchanged, Invalid, Verifier

LARGEST = 10_000
"""Bytes of a request."""


class Mint(Protocol):
    """Makes a token of a user; None where there is no such user or index."""

    def __call__(
        self, request: Any, user: str, *, allowed: Sequence[str], indexes: Sequence[str], expires: int
    ) -> str | None: ...


class Exchange:
    def __init__(self, rules: Rules, verifier: Verifier, mint: Mint) -> None:
        self._rules, self._verifier, self._mint = rules, verifier, mint
        self._exchanged = Exchanged()

    def view(self, request: Any) -> Any:
        """The view. A refusal is one line; its reason stands in the log, without the token."""
        try:
            claims = self._verifier.claims(token := _token(request))
        except Invalid as error:
            return _refused(request, 401, "invalid ID token", str(error))
        except Unavailable as error:
            return _refused(request, 503, "the issuer of the ID token does not answer: try again", str(error))
        who = f"{claims['iss']}, {str(claims.get('sub', ''))[:200]!r}"
        rule = self._rules.admitting(claims)
        if rule is None:
            return _refused(request, 403, "no rule of server.oidc admits this job", f"no rule for {who}")
        if not self._exchanged.first(token, float(claims["exp"])):
            return _refused(request, 403, "this ID token was exchanged before: get a new one", f"a second time: {who}")
        expires = int(time.time()) + rule.seconds
        made = self._mint(request, rule.user, allowed=rule.allowed, indexes=rule.indexes, expires=expires)
        if made is None:
            missing = f"there is no user {rule.user}, or none of the rule's indexes"
            return _refused(request, 403, missing, f"{missing}: {who}")
        threadlog.info("oidc: a token of %s for %s until %s, client %s", rule.user, who, expires, request.client_addr)
        # `success` is what other clients of such an exchange look at.
        found = {"token": made, "user": rule.user, "expires": expires, "success": True}
        return _answer(200, {**found, "indexes": list(rule.indexes), "allowed": list(rule.allowed)})

    def audience(self, request: Any) -> Any:
        """The audience that an ID token must have, for clients that ask (trusted publishing)."""
        return _answer(200, {"audience": self._rules.rules[0].audience})


def _token(request: Any) -> str:
    """The ID token in a request. Raises Invalid."""
    if (request.content_length or 0) > LARGEST:
        raise Invalid("the request is too large")
    try:
        body = loads(request.body_file.read(LARGEST))
    except ValueError:
        raise Invalid("the request is no JSON") from None
    token = body.get("token") if isinstance(body, dict) else None
    if not isinstance(token, str):
        raise Invalid("the request has no token")
    return token


def _refused(request: Any, status: int, message: str, reason: str) -> Any:
    threadlog.warn("oidc: refused, client %s: %s", request.client_addr, reason)
    headers = {"Retry-After": "5"} if status == 503 else {}
    return _answer(status, {"message": message}, headers)


def _answer(status: int, body: Mapping[str, object], headers: Mapping[str, str] | None = None) -> Any:
    made = Response(dumps(body), status=status, content_type="application/json", charset="utf-8")
    made.headers.update({"Cache-Control": "no-store", **(headers or {})})
    return made
