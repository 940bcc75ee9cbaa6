"""The middleware: every request passes it before devpi opens a transaction. Stored pages are answered here.

If devpi has to ask an upstream for a page, one request alone causes that (single flight). The other clients wait and
get its result: with devpi's own lock they would go on with an older view of the database, in which the page is empty
(docs/explanation/devpi-concurrent-first-requests.md). The way of a request is described in docs/explanation/server.md.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from devpi_server.log import threadlog
from devpi_server.views import SIMPLE_API_V1_JSON as JSON_TYPE
from pyramid.response import Response

from deployer.protocol import BODY_ROUTE, NAMES_ROUTE
from deployer.server.hosts import ASKED_HOST, MISDIRECTED, REFUSED, KnownHosts
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.downloads import Downloads
from deployer.server.middleware.requests import PageRequest, credentials, is_text, may_ask, page_request
from deployer.server.middleware.responses import SharedResponse, StreamedBody, busy, send_file
from deployer.server.middleware.single_flight import Flight, SingleFlight
from deployer.server.pages.freshness import RETRY, Indexes, Mirror
from deployer.server.pages.store import Key, PageStore, View
from deployer.server.secret_files import Private
from deployer.server.upstream.health import Upstream

STORED_HEADER = "X-Deployer-Kept"
"""For nginx's access log: the page was stored. nginx does not pass it on to clients."""
PATIENCE = 1.0
"""Seconds that a client waits for a new page before it gets the stale one."""
_FILE = re.compile(r"/[^+/]+/[^+/]+/\+[ef]/.+")
_PASS, _FIRST, _TRANSACTION = "deployer.pass", "deployer.first", "deployer.transaction"
_TYPES = {"json": JSON_TYPE, "html": "text/html"}
_CHECK_EVERY = 0.1
"""Seconds between two checks of whether a client may go on waiting."""

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class PageResult:
    """devpi's response for a page, the request that it answers, and the state of the database that it shows."""

    page: PageRequest
    response: SharedResponse
    view: View


class Middleware:
    """The tween above devpi's own. ``timeout``: seconds that devpi waits for an upstream."""

    def __init__(
        self,
        store: PageStore,
        indexes: Indexes,
        bulkhead: Bulkhead,
        serverdir: Path,
        *,
        timeout: float,
        offline: Callable[[], bool],
        hosts: KnownHosts,
    ) -> None:
        self._hosts = hosts
        self._store = store
        self._indexes = indexes
        self._bulkhead = bulkhead
        self._timeout = timeout
        self._offline = offline
        self._files = serverdir / "+files"
        self._flights: SingleFlight[PageResult] = SingleFlight("page")
        self._downloads = Downloads(Private.of(serverdir).directory)

    def tween(self, handler: Handler) -> Handler:
        """The function that Pyramid calls for each request; ``handler``: the next tween."""

        def handle(request: Any) -> Any:
            if request.environ.pop(_PASS, False):
                return handler(request)
            if not self._hosts.knows(request.environ.get(ASKED_HOST, "")):
                return SharedResponse.of_text(MISDIRECTED, REFUSED).to_pyramid()
            if not is_text(request):
                return SharedResponse.of_text(400, "the URL is not UTF-8").to_pyramid()
            page = page_request(request)
            if page is not None:
                return self._page(request, page, handler)
            if self._is_cold_file(request):
                return self._file(request)
            return self._other(request, handler)

        return handle

    def _other(self, request: Any, handler: Handler) -> Any:
        self._indexes.refresh(self._store.configured)
        if request.method not in ("GET", "HEAD") and (crowd := self._verified(request)) is not None:
            return crowd
        upstreams = self._may_ask(request)
        with self._bulkhead.holding(upstreams) if upstreams else contextlib.nullcontext(True) as admitted:
            return self._answer(request, handler) if admitted else busy()

    def _verified(self, request: Any) -> Any:
        """Have the password of a write verified before its transaction: one at a time may write, and hashes are slow.

        None, or the response when too many wait for that.
        """
        headers = credentials(request)
        if not headers:
            return None
        asked = type(request).blank(BODY_ROUTE, headers=headers)
        asked.environ |= {_PASS: True, "REMOTE_ADDR": request.environ.get("REMOTE_ADDR", "")}
        response = request.invoke_subrequest(asked, use_tweens=True)
        return response if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE else None

    def _may_ask(self, request: Any) -> list[Upstream]:
        """The upstreams that devpi may ask for this request, in its thread."""
        asked = None if self._offline() else may_ask(request)
        if asked is None:
            return []
        index, project = asked
        again = request.method == "POST" or request.path_info == NAMES_ROUTE
        mirrors = self._indexes.mirrors(index, configured=self._store.configured) or ()
        return [
            self._indexes.upstream(mirror)
            for mirror in mirrors
            if self._indexes.may_be_asked(mirror, project, again=again)
        ]

    def _answer(self, request: Any, handler: Handler) -> Any:
        try:
            return send_file(request, handler(request))
        finally:
            # Before the response: when a write is acknowledged, the pages that it changed are gone.
            self._store.catch_up(None if request.method not in ("GET", "HEAD") else self._committed(request))

    @staticmethod
    def _committed(request: Any) -> int:
        transaction = request.environ.get(_TRANSACTION)
        serial = getattr(transaction, "commit_serial", None)
        return -1 if serial is None else int(serial)

    # Files

    def _is_cold_file(self, request: Any) -> bool:
        """Whether devpi may have to download the file. A client that accepts JSON gets a description of it instead."""
        if request.method not in ("GET", "HEAD") or "application/json" in request.headers.get("Accept", ""):
            return False
        found = _FILE.fullmatch(request.path_info)
        # devpi reads the metadata of a stored wheel from the wheel. An invalid path is not stored either.
        return found is not None and not os.path.exists(self._files / found[0][1:].removesuffix(".metadata"))  # noqa: PTH110

    def _file(self, request: Any) -> Any:
        user, index = request.path_info.split("/")[1:3]
        mirrors = self._indexes.mirrors(f"{user}/{index}", configured=self._store.configured) or ()
        upstreams = [self._indexes.upstream(mirror) for mirror in mirrors]
        deadline = time.monotonic() + self._timeout * 2
        with contextlib.ExitStack() as stack:
            permit = stack.enter_context(self._bulkhead.waiting(upstreams))
            if not permit.valid:
                return busy()
            download = self._downloads.join(request, lambda asked: self._inside(request, asked))
            while not download.wait_for_headers(_CHECK_EVERY):
                if not permit.valid or time.monotonic() > deadline:
                    return busy()
            if download.failed:
                return SharedResponse.of_text(502, "the file can't be downloaded").to_pyramid()
            body: Any = []
            if request.method == "GET":
                # The permit is released when the body has been sent, or the client has disconnected.
                body = StreamedBody(download.body(lambda: permit.valid), stack.pop_all())
            return Response(status=download.status, headerlist=list(download.headers), app_iter=body)

    def _inside(self, request: Any, asked: Any) -> Any:
        """devpi's response, past this middleware; what it committed is taken into account."""
        asked.environ[_PASS] = True
        response = request.invoke_subrequest(asked, use_tweens=True)
        self._store.catch_up(self._committed(asked))
        return response

    # Pages

    def _page(self, request: Any, page: PageRequest, handler: Handler) -> Any:
        stored = self._stored_page(request, page, self._store.read)
        if stored is not None:
            stored.headers[STORED_HEADER] = "1"
            return stored
        mirrors = self._indexes.mirrors(page.stage, configured=self._store.configured) or ()
        if self._offline() or all(self._indexes.is_fresh(mirror, page.project) for mirror in mirrors):
            return self._ask(request, page, mirrors, handler).response.to_pyramid()
        stale = self._stored_page(request, page, self._store.read_stale)
        if stale is not None:
            return self._refreshed(request, page, mirrors, stale)
        return self._first(request, page, mirrors)

    def _stored_page(self, request: Any, page: PageRequest, read: Callable[[Key, str], bytes | None]) -> Any:
        if page.name is None:
            return None
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        body = read(page.key, f"{page.name}.gz" if packed else page.name)
        if body is None:
            return None
        response = Response(body=body, content_type=_TYPES[page.name], charset="utf-8")
        response.headers["Vary"] = "Accept, Accept-Encoding, User-Agent"
        response.headers["Cache-Control"] = "no-cache"
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        return response

    def _refreshed(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...], stale: Any) -> Any:
        """A new page if it comes within PATIENCE seconds, else the stale one."""
        if all(self._indexes.upstream(mirror).answers for mirror in mirrors):
            flight, _ = self._join(request, page, mirrors)
            if flight.wait(PATIENCE):
                fresh = self._stored_page(request, page, self._store.read)
                if fresh is not None:
                    return fresh
                result = flight.result
                if result.page == page and result.response.status < 500 and not self._is_outdated(result):
                    return result.response.for_others(page).to_pyramid()
        self._store.extend(page.key, RETRY)
        return stale

    def _first(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...]) -> Any:
        """No page is stored: ask devpi, or wait for the request that asks already."""
        upstreams = [self._indexes.upstream(mirror) for mirror in mirrors]
        deadline = time.monotonic() + self._timeout * (len(mirrors) + 1)
        with self._bulkhead.waiting(upstreams) as permit:
            while permit.valid:
                flight, mine = self._join(request, page, mirrors)
                while not flight.wait(_CHECK_EVERY):
                    if not permit.valid or time.monotonic() > deadline:
                        return busy()
                if (stored := self._stored_page(request, page, self._store.read)) is not None:
                    return stored
                result = flight.result
                if mine and not self._is_outdated(result):
                    return result.response.to_pyramid()
                if page.name and result.page == page and self._store.is_current(page.project, result.view):
                    return result.response.for_others(page).to_pyramid()
            return busy()

    def _join(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...]) -> tuple[Flight[PageResult], bool]:
        """The flight that asks one of these mirrors for the project, or a new one."""
        keys = [f"{mirror.name} {page.project}" for mirror in mirrors]
        return self._flights.join(keys, lambda: self._fly(request, page, mirrors))

    def _is_outdated(self, result: PageResult) -> bool:
        """Whether it shows no file, but a fetch that devpi had stopped waiting for has changed the project since."""
        return result.response.shows_nothing and not self._store.is_current(result.page.project, result.view)

    def _fly(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...]) -> PageResult:
        asked = request.copy()
        with self._bulkhead.asking([self._indexes.upstream(mirror) for mirror in mirrors]):
            return self._ask(asked, page, mirrors, lambda asked: self._inside(request, asked))

    def _ask(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...], handler: Handler) -> PageResult:
        """Ask devpi in this thread, and store the page if possible."""
        began, mark = time.monotonic(), self._store.mark
        given = handler(request)
        response = SharedResponse(given.status_code, tuple(given.headers.items()), given.body)
        view = View(first=request.environ[_FIRST], own=request.environ[_TRANSACTION].commit_serial, mark=mark)
        self._store.catch_up(-1 if view.own is None else view.own)
        if response.shows_nothing and (silent := self._silent(page, mirrors, began)):
            # devpi skips a base that does not answer, and would report "no such project".
            threadlog.warn("upstream of %s did not answer for %s", silent, page.project)
            return PageResult(
                page, SharedResponse.of_text(502, f"the upstream of {silent} did not answer for {page.project}"), view
            )
        if response.status == 200 and page.name is not None:
            due = float("inf") if self._offline() else self._indexes.due(mirrors, page.project, began=began)
            self._store.put(page.key, page.name, response.body, due=due, view=view)
        return PageResult(page, response, view)

    def _silent(self, page: PageRequest, mirrors: tuple[Mirror, ...], began: float) -> str:
        """A mirror whose upstream was asked since ``began`` and did not answer; empty when there is none."""
        silent = (mirror.name for mirror in mirrors if self._indexes.gave_nothing(mirror, page.project, began=began))
        return next(silent, "")


def note_transaction(handler: Handler, registry: Any) -> Handler:
    """The tween below devpi's own: it records the state of the database that a response shows."""
    keyfs = registry["xom"].keyfs

    def note(request: Any) -> Any:
        request.environ[_TRANSACTION] = keyfs.tx
        request.environ[_FIRST] = keyfs.tx.at_serial
        return handler(request)

    return note
