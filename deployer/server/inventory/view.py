"""``POST /+deployer/inventory`` and ``/+deployer/prune``, for whoever can read the server directory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from pyramid.response import Response

from deployer.protocol import InventoryRequest, PruneRequest
from deployer.server.challenge import INVALID, Challenge
from deployer.server.inventory import reading
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.prune import Pruner


class InventoryView:
    """The view."""

    def __init__(self, inventory: Inventory, challenge: Challenge) -> None:
        self._inventory, self._challenge = inventory, challenge

    def __call__(self, request: Any) -> Any:
        try:
            wanted = InventoryRequest.parse(request.json_body)
        except (ValueError, RecursionError):
            wanted = None
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            return _message(403, INVALID)
        return Response(json_body=reading.answer(self._inventory, wanted))


class PruneView:
    """The view. ``offline``: whether upstreams must not be asked."""

    def __init__(self, pruner: Pruner, challenge: Challenge, *, offline: Callable[[], bool]) -> None:
        self._pruner, self._challenge, self._offline = pruner, challenge, offline

    def __call__(self, request: Any) -> Any:
        try:
            wanted = PruneRequest.parse(request.json_body)
        except (ValueError, RecursionError):
            wanted = None
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            return _message(403, INVALID)
        if self._offline() and not wanted.dry:
            return _message(400, "this server is offline: what is pruned could not be fetched again")
        try:
            return Response(json_body=self._pruner.run(wanted))
        except (OSError, sqlite3.Error) as error:
            return _message(507, f"the cache can't be pruned: {error}")


def _message(status: int, text: str) -> Any:
    return Response(json_body={"message": text}, status=status)
