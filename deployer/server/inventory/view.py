"""``POST /+deployer/inventory``: what is cached and uploaded, for whoever can read the server directory."""

from __future__ import annotations

from typing import Any

from pyramid.response import Response

from deployer.protocol import InventoryRequest
from deployer.server.challenge import INVALID, Challenge
from deployer.server.inventory import reading
from deployer.server.inventory.database import Inventory


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
            return Response(json_body={"message": INVALID}, status=403)
        return Response(json_body=reading.answer(self._inventory, wanted))
