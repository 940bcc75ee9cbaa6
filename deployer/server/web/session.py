"""Who is logged in: a cookie with devpi's own login token, which devpi verifies and lets expire.

The cookie counts for our pages only, never for the index's API, so no other site can write in a user's name with it.
It is sent for requests from our own pages (``SameSite=Strict``), no script reads it, and each form repeats a word that
only our pages know.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

COOKIE = "deployer-session"
LONGEST = 4000
"""Characters of a cookie: browsers keep no longer ones."""
FORM_WORD = "word"
"""The field of each form with :attr:`Session.word`."""


@dataclass(frozen=True)
class Session:
    """A user, and the token that devpi gave at the login."""

    user: str
    token: str

    @property
    def auth(self) -> str:
        """The value of ``X-Devpi-Auth`` with which the index knows the user."""
        return b64encode(f"{self.user}:{self.token}".encode()).decode()

    @property
    def word(self) -> str:
        """What a form of this session has to repeat."""
        return hmac.digest(self.token.encode(), b"form", hashlib.sha256).hex()[:32]

    @property
    def cookie(self) -> str:
        return urlsafe_b64encode(f"{self.user}:{self.token}".encode()).decode()

    @classmethod
    def parse(cls, cookie: str) -> Session | None:
        """The session of a cookie's value, which may be anything; whether its token is valid is for devpi to say."""
        if not 0 < len(cookie) <= LONGEST:
            return None
        try:
            user, _, token = urlsafe_b64decode(cookie.encode()).decode().partition(":")
        except ValueError:
            return None
        whole = f"{user}{token}"
        return cls(user, token) if user and token and whole.isascii() and whole.isprintable() else None


def of(request: Any) -> Session | None:
    """The session of a request, whether or not its token is still valid."""
    return Session.parse(request.cookies.get(COOKIE, ""))


def set_cookie(request: Any, session: Session | None) -> tuple[str, str]:
    """The header that stores the session in the browser; None removes it."""
    value, age = (session.cookie, "") if session else ("", "; Max-Age=0")
    secure = "; Secure" if request.scheme == "https" else ""
    where = request.script_name or "/"
    return "Set-Cookie", f"{COOKIE}={value}; Path={where}; HttpOnly; SameSite=Strict{secure}{age}"


def is_own(request: Any, session: Session | None, word: str) -> bool:
    """Whether a form was sent by a page of ours: browsers say from which site, and it repeats the session's word."""
    site, origin = request.headers.get("Sec-Fetch-Site", ""), request.headers.get("Origin", "")
    if site not in ("", "same-origin", "none"):
        return False
    if origin and (origin == "null" or urlsplit(origin).netloc != request.host):
        return False
    return session is None or hmac.compare_digest(session.word, word)
