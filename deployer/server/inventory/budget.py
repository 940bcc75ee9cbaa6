"""Keep the cache within ``server.budget``, while serving: the least recently used goes first.

One thread waits until something was cached, and then prunes for at most a second at a time, at most ten times a second.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from devpi_server.log import threadlog

from deployer.protocol import PruneRequest
from deployer.server.inventory.database import Inventory
from deployer.server.inventory.prune import PAUSE, Pruner

NAME = "deployer-budget"
LOW = 0.97
"""Part of the budget that is left after pruning, so that not each new file makes a commit."""
LEAST = 0.9
"""Part of it that is left for whatever is waiting to be stored."""
EVERY = 0.1
"""Seconds between two runs."""
STUCK = 30.0
"""Seconds until the next run after one that found nothing to remove."""
SECONDS = 1.0
IDLE = 60.0
PATIENCE = 10.0
"""Seconds for which a new file waits until there is room for it."""


@dataclass(frozen=True)
class Budget:
    """``server.budget`` in bytes; None for no limit. Registered as a devpi plugin, like push targets."""

    most: int | None = None

    @property
    def for_pages(self) -> int | None:
        """The part of it that finished pages may take."""
        return None if self.most is None else self.most // 20


def given(config: Any) -> Budget:
    """The budget of this server. ``config``: devpi's."""
    found: Budget | None = config.pluginmanager.get_plugin(NAME)
    return found or Budget()


class BudgetKeeper:
    """``most``: bytes. ``others``: bytes of what else counts, the finished pages."""

    def __init__(
        self,
        inventory: Inventory,
        pruner: Pruner,
        most: int,
        *,
        others: Callable[[], int],
        offline: Callable[[], bool],
    ) -> None:
        self._inventory, self._pruner, self._most = inventory, pruner, most
        self._others, self._offline = others, offline
        self._stuck = False
        self._coming = self._waiting = 0
        self._pruned = threading.Condition()

    @property
    def used(self) -> int:
        """What counts, in bytes."""
        return self._pruner.cache_bytes + self._others()

    @contextlib.contextmanager
    def room_for(self, size: int) -> Iterator[None]:
        """Wait while there is no room for a new file of ``size`` bytes: others are removed first."""
        with self._pruned:
            self._waiting += size
            self._inventory.grown.set()
            self._pruned.wait_for(lambda: self._has_room(size), PATIENCE)
            self._waiting -= size
            self._coming += size
        try:
            yield
        finally:
            with self._pruned:
                self._coming -= size

    def _has_room(self, size: int) -> bool:
        if self._stuck or self._offline():
            return True
        taken = self.used + self._pruner.leaving + self._coming
        # No more than this is removed, so a large file that comes alone has room even if it does not fit.
        return taken + size <= self._most or (self._coming == 0 and taken <= self._most * LOW)

    def watch(self) -> None:
        """Keep it; runs until the process ends."""
        while True:
            self._inventory.grown.wait(IDLE)
            self._inventory.grown.clear()
            time.sleep(EVERY if self.keep() else STUCK)

    def keep(self) -> bool:
        """Prune if need be; False if there was need, and nothing to remove."""
        try:
            used, more = self.used, self._coming + self._waiting
            if used + more <= self._most or self._offline():
                return True
            target = max(self._most * LEAST, min(self._most * LOW, self._most - more))
            wanted = PruneRequest(to_bytes=max(0, int(target) - self._others()))
            done = self._pruner.run(wanted, seconds=SECONDS, pause=self._pause)
        except (OSError, sqlite3.Error) as error:
            threadlog.warn("the cache can't be pruned: %s", error)
            return False
        if done["left"]:
            self._inventory.grown.set()
        stuck = not done["removed"] and used > self._most
        if stuck and not self._stuck:
            threadlog.warn("the cache takes %s bytes, more than server.budget; nothing more can be removed", used)
        self._stuck = stuck
        self._pause(0.0)
        return not self._stuck

    def _pause(self, seconds: float = PAUSE) -> None:
        with self._pruned:
            self._pruned.notify_all()
        time.sleep(seconds)
