"""Offline while it runs: nothing is asked of any upstream, and pages list what is here.

``POST /+deployer/offline`` with ``{"offline": true, "proof": …}`` switches, from now on and over restarts. The proof
shows that the caller may read the data directory: an HMAC, by the proof key, of the challenge that ``GET /+deployer``
tells, the server's uuid and what is wanted. Each challenge serves once.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from typing import Any

from deployer.server.pages.changelog import Changelog
from deployer.server.pages.store import PageStore
from deployer.server.secret_files import Private, read_text, write_private

ROUTE = "/+deployer/offline"
_WORDS = {"on": True, "off": False}


class Switch:
    """The one place that says whether the server is offline. What it was told last wins over the command line."""

    def __init__(self, config: Any, private: Private) -> None:
        self._config = config
        self._private = private
        self._lock = threading.Lock()
        self.challenge = secrets.token_hex(16)
        told = _WORDS.get(read_text(private.offline) or "")
        if told is not None:
            self._set(told)

    @property
    def on(self) -> bool:
        """Whether no upstream is asked."""
        return bool(self._config.offline_mode)

    def _set(self, offline: bool) -> None:
        # devpi looks at this whenever a request opens an index.
        self._config.args.offline_mode = offline

    def turn(self, *, offline: bool, store: PageStore, changelog: Changelog) -> None:
        """Switch, for good. Raises OSError: nothing is switched that could not be written down."""
        write_private(self._private.offline, "on\n" if offline else "off\n")
        self._set(offline)
        changelog.offline = offline
        store.forget_all()

    def view(self, request: Any) -> dict[str, Any]:
        """What ``POST`` answers."""
        store, changelog = request.registry["deployer.pages"], request.registry["deployer.changelog"]
        told = _told(request)
        with self._lock:
            if told is None or not self._is_proved(*told):
                request.response.status = 403
                return {"message": "the proof is wrong, or of another challenge"}
            self.challenge = secrets.token_hex(16)
            self.turn(offline=told[0], store=store, changelog=changelog)
        return {"offline": self.on}

    def _is_proved(self, offline: bool, proof: str) -> bool:
        key = bytes.fromhex(self._private.proof_key.read_text(encoding="ascii").strip())
        text = f"{self.challenge}:{self._config.nodeinfo['uuid']}:offline {'on' if offline else 'off'}"
        expected = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected.encode(), proof.encode())


def _told(request: Any) -> tuple[bool, str] | None:
    try:
        body = request.json_body
    except (ValueError, RecursionError):
        return None
    if not isinstance(body, dict):
        return None
    offline, proof = body.get("offline"), body.get("proof")
    return (offline, proof) if isinstance(offline, bool) and isinstance(proof, str) and proof.isascii() else None
