"""Corrections to the way devpi fetches a mirror's page: a failure of the upstream is reported as such.

devpi waits ``--request-timeout`` for a page, then leaves the rest to a background task that holds the project's lock
until the page is stored. A page that fails after that time (a redirect to a host that does not answer, a body that
breaks off) is never stored: the next request waits for the lock in vain and gets "no such project". A response that
devpi cannot parse is reported as an internal error.
"""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import Any

from deployer.server.devpi.installed import inside

_FETCH, _STORE = "_async_fetch_releaselinks", "_update_simplelinks_in_future"


def install() -> None:
    """Replace the fetching and storing of a mirror's page."""
    mirror = inside().MirrorStage
    fetch, store = getattr(mirror, _FETCH), getattr(mirror, _STORE)

    async def fetch_page(self: Any, page: asyncio.Future[Any], *of: Any) -> None:
        try:
            await fetch(self, page, *of)
        except self.UpstreamNotModified as error:
            if error.etag is None:  # a 304 that nobody asked for
                raise self.UpstreamError(str(error)) from None
            raise
        except self.UpstreamError:
            raise
        except Exception as error:  # anything that a parser may raise
            raise self.UpstreamError(f"invalid page: {type(error).__name__} {error}") from error
        finally:
            page.cancel()  # no effect on a page that has arrived

    async def store_page(self: Any, page: asyncio.Future[Any], project: Any, lock: Any) -> None:
        if lock is None:  # devpi took a reused thread id for the thread that has the lock
            lock = Lock()
            lock.acquire()
        try:
            await page
        except asyncio.CancelledError:
            lock.release()
            raise
        await store(self, page, project, lock)

    setattr(mirror, _FETCH, fetch_page)
    setattr(mirror, _STORE, store_page)
