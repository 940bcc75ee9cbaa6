"""Stop waitress once the requests under way are answered. Connections that come meanwhile wait in the backlog."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 5.0
"""Seconds that requests under way have; those that take longer are cut off."""
_IDLE = 1.0
"""Seconds after which a client that keeps its connection open, and asks for nothing, is cut off."""


class Drain:
    """Watches all servers of this process from their loop."""

    def __init__(self) -> None:
        self.done = False
        """Whether waitress has ended because of :meth:`begin`."""
        self._servers: list[Any] = []
        self._until = 0.0

    def install(self, serving: Callable[[], None]) -> None:
        """Watch waitress from now on; ``serving`` is called once it begins to serve."""
        from waitress.server import BaseWSGIServer

        readable = BaseWSGIServer.readable

        def watched(server: Any) -> bool:
            if server not in self._servers:
                self._servers.append(server)
                if len(self._servers) == 1:
                    serving()
            if self._until:
                self._look(time.monotonic())
            return bool(readable(server))

        BaseWSGIServer.readable = watched

    def begin(self) -> None:
        """Accept no more connections, and end the loop. Called by a signal handler in the thread of the loop."""
        if not self._until:
            self._until = time.monotonic() + PATIENCE
            for server in self._servers:
                server.pull_trigger()

    def _look(self, now: float) -> None:
        channels = []
        for server in self._servers:
            server.accepting = False
            channels += server.active_channels.values()
        for channel in channels:
            # nginx sends its request at once.
            idle = channel.socket.family != socket.AF_UNIX and time.time() - channel.last_activity > _IDLE
            if idle and not channel.requests:
                channel.will_close = True
        if not channels or now > self._until:
            self.done = True
            raise KeyboardInterrupt
