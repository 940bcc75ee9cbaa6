"""The tween of orders to this server: requests with a proof, answered above devpi's transactions.

For a POST devpi opens a transaction that writes, and other writes wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Handler = Callable[[Any], Any]


class Orders:
    """``views``: by path."""

    def __init__(self, views: Mapping[str, Handler]) -> None:
        self.views = dict(views)

    def tween(self, handler: Handler) -> Handler:
        def handle(request: Any) -> Any:
            view = self.views.get(request.path_info) if request.method == "POST" else None
            return handler(request) if view is None else view(request)

        return handle
