"""A login of root's that is prepared by whoever can read the server directory: ``deployer open``.

``POST /+deployer/open`` with a proof gives a code; the address with it logs in once, within a minute.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from deployer.protocol import OpenRequest
from deployer.server.challenge import INVALID, Challenge
from deployer.server.secret_files import Private, read_text

LASTS = 60.0
"""Seconds for which a code is valid."""


class OneTimeLogin:
    """The code that was given last; another one replaces it."""

    def __init__(self, private: Private, challenge: Challenge) -> None:
        self._private, self._challenge = private, challenge
        self._lock = threading.Lock()
        self._code, self._until = "", 0.0

    def view(self, request: Any) -> dict[str, Any]:
        """The view of ``POST``."""
        try:
            wanted = OpenRequest.parse(request.json_body)
        except (ValueError, RecursionError):
            wanted = None
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            request.response.status = 403
            return {"message": INVALID}
        with self._lock:
            self._code, self._until = secrets.token_urlsafe(32), time.monotonic() + LASTS
            return {"code": self._code}

    def take(self, code: str) -> str:
        """Root's password for a valid code, which is valid no longer; else empty."""
        with self._lock:
            valid = bool(self._code) and secrets.compare_digest(self._code, code) and time.monotonic() < self._until
            if valid:
                self._code = ""
        return (read_text(self._private.root_password) or "") if valid else ""
