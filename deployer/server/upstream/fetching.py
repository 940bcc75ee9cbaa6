"""How devpi fetches a mirror's page, where it takes a failure for something else.

It waits ``--request-timeout`` for the page and no longer, and has the rest done in the background, with the lock of the
project, which is let go of when the page is stored. A page that fails by then (a redirect to a host that hangs, a body
that breaks off) is never stored: whoever asks next waits for the lock for nothing, and is told that there is no such
project. What is no page at all, of a form that devpi does not understand, is told as an error of the server's own.
"""

from __future__ import annotations

import asyncio
import time
from threading import Lock
from typing import Any

from deployer.server.devpi.installed import inside
from deployer.server.refusal import unfit

_FETCH, _STORE, _TURN = "_async_fetch_releaselinks", "_update_simplelinks_in_future", "acquire"
_MISSED = "deployer_missed"


def missed(times: Any, project: str) -> float:
    """When somebody last waited in vain for whoever fetches ``project`` (monotonic). ``times``: the mirror's."""
    return float(vars(times).get(_MISSED, {}).get(project, float("-inf")))


def install() -> None:
    """Have each failure told as the upstream's. Raises Refusal when devpi fetches pages in another way."""
    mirror, times = inside().MirrorStage, inside().ProjectUpdateCache
    fetch, store, acquire = (getattr(mirror, _FETCH, None), getattr(mirror, _STORE, None), getattr(times, _TURN, None))
    if not (asyncio.iscoroutinefunction(fetch) and asyncio.iscoroutinefunction(store) and callable(acquire)):
        raise unfit("fetches pages of mirrors in another way than the one that is mended here")
    if fetch.__module__ == __name__:
        return

    async def fetch_page(self: Any, page: asyncio.Future[Any], *of: Any) -> None:
        try:
            await fetch(self, page, *of)
        except self.UpstreamNotModified as error:
            if error.etag is None:  # nobody asked whether it was
                raise self.UpstreamError(str(error)) from None
            raise
        except self.UpstreamError:
            raise
        except Exception as error:  # whatever a parser makes of what is no page
            raise self.UpstreamError(f"what came is no page: {type(error).__name__} {error}") from error
        finally:
            page.cancel()  # nothing, where it has come

    async def store_page(self: Any, page: asyncio.Future[Any], project: Any, lock: Any) -> None:
        if lock is None:  # where devpi took the number of an ended thread for the thread that has the lock
            lock = Lock()
            lock.acquire()
        try:
            await page
        except asyncio.CancelledError:
            lock.release()
            raise
        await store(self, page, project, lock)

    def wait_for_turn(self: Any, project: Any, timeout: float = -1) -> Any:
        lock = acquire(self, project, timeout)
        if lock is None:
            vars(self).setdefault(_MISSED, {})[str(project)] = time.monotonic()
        return lock

    setattr(mirror, _FETCH, fetch_page)
    setattr(mirror, _STORE, store_page)
    setattr(times, _TURN, wait_for_turn)
