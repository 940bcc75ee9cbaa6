"""``POST /+deployer/offline``: switch a running server offline or online.

Offline, no upstream is asked, and pages list only the files that are stored. The switch survives restarts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from deployer.protocol import OfflineRequest
from deployer.server.challenge import INVALID, Challenge
from deployer.server.pages.changelog import Changelog
from deployer.server.pages.missed import MissedRequests
from deployer.server.pages.store import PageStore
from deployer.server.secret_files import Private, read_text, write_private

_WORDS = {"on": True, "off": False}


class OfflineSwitch:
    """Whether the server is offline. The last switch wins over the command line."""

    def __init__(self, config: Any, private: Private, challenge: Challenge) -> None:
        self._config = config
        self.missed = MissedRequests(private.missed)
        """What clients ask for in vain while it is on."""
        self._private = private
        self._challenge = challenge
        self._lock = threading.RLock()
        self.on_turn: Callable[[], object] = lambda: None
        """Called when it was turned."""
        kept = _WORDS.get(read_text(private.offline) or "")
        if kept is not None:
            self._set(kept)

    @property
    def on(self) -> bool:
        """Whether the server is offline, or the current request is to be answered as if it was."""
        return bool(self._config.offline_mode)

    def _set(self, offline: bool) -> None:
        # devpi reads this whenever a request opens an index.
        self._config.args.offline_mode = offline

    def turn(self, *, offline: bool, store: PageStore, changelog: Changelog) -> None:
        """Switch, and keep the state for later starts. Raises OSError, and then nothing is switched."""
        with self._lock:
            if offline and not self.on:
                self.missed.begin()
            write_private(self._private.offline, "on\n" if offline else "off\n")
            self._set(offline)
            changelog.offline = offline
            store.forget_all()
        self.on_turn()

    def view(self, request: Any) -> dict[str, Any]:
        """The view of ``POST``."""
        store, changelog = request.registry["deployer.pages"], request.registry["deployer.changelog"]
        wanted = _read(request)
        with self._lock:
            if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
                request.response.status = 403
                return {"message": INVALID}
        self.turn(offline=wanted.offline, store=store, changelog=changelog)
        return {"offline": self.on}


def _read(request: Any) -> OfflineRequest | None:
    try:
        return OfflineRequest.parse(request.json_body)
    except (ValueError, RecursionError):
        return None
