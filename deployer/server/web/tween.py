"""The tween that answers browsers. Nothing of the pages is imported before the first of them is asked for.

It stands above all that answers clients of the index, and passes on every request that is not a browser's. What a page
needs of the index is asked of the index itself, by an inner request: rules, permissions, limits and single flight hold
for a browser as for an installer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from devpi_server.views import INSTALLER_USER_AGENT_REGEXP as INSTALLER

from deployer.protocol import OFFLINE_HEADER
from deployer.server.hosts import ASKED_HOST, KnownHosts
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.prune import Pruner
from deployer.server.middleware.requests import is_text, takes_gzip
from deployer.server.mirrors.indexes import Indexes
from deployer.server.mirrors.source import Source
from deployer.server.nginx.activity import ActivityView
from deployer.server.nginx.history import History
from deployer.server.pages.store import PageStore
from deployer.server.web.once import OneTimeLogin
from deployer.server.web.routes import Route, route

Handler = Callable[[Any], Any]


class Web:
    """The pages. ``serverdir``: devpi's. ``offline``: whether the server is."""

    def __init__(
        self,
        xom: Any,
        indexes: Indexes,
        source: Source,
        store: PageStore,
        *,
        inventory: Inventory,
        activity: ActivityView,
        history: History,
        hosts: KnownHosts,
        serverdir: Path,
        offline: Callable[[], bool],
        switch: Callable[[bool], None],
        once: OneTimeLogin | None,
        pruner: Pruner,
        hidden: Callable[[Any], frozenset[str]],
    ) -> None:
        """``switch`` turns the server offline or online. ``once``: of ``deployer open``; None where nobody logs in.
        ``hidden``: the indexes that the sender of a request may not read."""
        self.xom, self.indexes, self.source, self.store = xom, indexes, source, store
        self.inventory, self.activity, self.history = inventory, activity, history
        self.serverdir, self.offline = serverdir, offline
        self.switch, self.once, self.pruner = switch, once, pruner
        self.hidden = hidden
        self._hosts = hosts

    @property
    def manages(self) -> bool:
        """Whether users may log in on the pages."""
        return self.once is not None

    def has_page(self, request: Any) -> bool:
        """Whether one of these pages answers a request."""
        return self._route(request) is not None

    def tween(self, handler: Handler) -> Handler:
        """The function that Pyramid calls for each request; ``handler``: the next tween."""

        def handle(request: Any) -> Any:
            found = self._route(request)
            return handler(request) if found is None else self._show(request, found)

        return handle

    def _route(self, request: Any) -> Route | None:
        """The page that is asked for; None for a request that others answer, or refuse."""
        environ = request.environ
        if OFFLINE_HEADER in request.headers or not self._hosts.knows(environ.get(ASKED_HOST, "")):
            return None
        if not is_text(request):
            return None
        agent = INSTALLER.match(request.user_agent or "") is not None
        accept = environ.get("HTTP_ACCEPT", "")
        return route(request.method, request.path_info, accept=accept, installer=agent, manages=self.manages)

    def _show(self, request: Any, found: Route) -> Any:
        from deployer.server.web import site

        return site.answer(self, request, found, packed=takes_gzip(request))
