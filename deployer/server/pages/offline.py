"""``POST /+deployer/offline``: switch a running server offline or online.

Offline, no upstream is asked, and pages list only the files that are stored. The switch survives restarts. The proof in
the request shows that the client can read the server directory; each challenge of ``GET /+deployer`` is valid once.
"""

from __future__ import annotations

import secrets
import threading
from typing import Any

from deployer.protocol import OfflineRequest, client_proof, same_proof
from deployer.server.pages.changelog import Changelog
from deployer.server.pages.store import PageStore
from deployer.server.secret_files import Private, read_text, write_private

_WORDS = {"on": True, "off": False}


class OfflineSwitch:
    """Whether the server is offline. The last switch wins over the command line."""

    def __init__(self, config: Any, private: Private) -> None:
        self._config = config
        self._private = private
        self._lock = threading.Lock()
        self.challenge = secrets.token_hex(16)
        kept = _WORDS.get(read_text(private.offline) or "")
        if kept is not None:
            self._set(kept)

    @property
    def on(self) -> bool:
        """Whether the server is offline."""
        return bool(self._config.offline_mode)

    def _set(self, offline: bool) -> None:
        # devpi reads this whenever a request opens an index.
        self._config.args.offline_mode = offline

    def turn(self, *, offline: bool, store: PageStore, changelog: Changelog) -> None:
        """Switch, and keep the state for later starts. Raises OSError, and then nothing is switched."""
        write_private(self._private.offline, "on\n" if offline else "off\n")
        self._set(offline)
        changelog.offline = offline
        store.forget_all()

    def view(self, request: Any) -> dict[str, Any]:
        """The view of ``POST``."""
        store, changelog = request.registry["deployer.pages"], request.registry["deployer.changelog"]
        wanted = _read(request)
        with self._lock:
            if wanted is None or not self._is_proved(wanted):
                request.response.status = 403
                return {"message": "invalid proof, or a proof for another challenge"}
            self.challenge = secrets.token_hex(16)
            self.turn(offline=wanted.offline, store=store, changelog=changelog)
        return {"offline": self.on}

    def _is_proved(self, wanted: OfflineRequest) -> bool:
        key, uuid = read_text(self._private.proof_key) or "", self._config.nodeinfo["uuid"]
        return same_proof(client_proof(key, challenge=self.challenge, uuid=uuid, offline=wanted.offline), wanted.proof)


def _read(request: Any) -> OfflineRequest | None:
    try:
        return OfflineRequest.parse(request.json_body)
    except (ValueError, RecursionError):
        return None
