"""What every request goes through before devpi, above its transactions: pages that are warm never get there.

A page that devpi would have to ask an upstream for is asked for by one request alone. Whoever wants it meanwhile
waits, and is answered by a transaction that begins after the first one's end: devpi's own lock lets them run with an
older view of the database, in which the page is empty (docs/devpi-concurrent-first-requests.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devpi_server.log import threadlog
from devpi_server.views import SIMPLE_API_V1_JSON as JSON_TYPE
from pyramid.response import Response

from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.downloads import Downloads
from deployer.server.middleware.requests import Wanted, is_text, wanted_page
from deployer.server.middleware.responses import Answer, Body, busy, by_file
from deployer.server.middleware.single_flight import Flight, Flights
from deployer.server.pages.freshness import RETRY, Indexes, Mirror
from deployer.server.pages.store import Key, PageStore, View
from deployer.server.secret_files import Private

KEPT = "X-Deployer-Kept"
"""For the access log of a front: the page was here already. A front keeps it from clients."""
PATIENCE = 1.0
"""Seconds that a client waits for a new page when there is one that was right until just now."""
_FILE = re.compile(r"/[^+/]+/[^+/]+/\+[ef]/.+")
_PASS, _FIRST, _TRANSACTION = "deployer.pass", "deployer.first", "deployer.transaction"
_TYPES = {"json": JSON_TYPE, "html": "text/html"}
_SLICE = 0.1
"""Seconds between two looks at whether to go on waiting."""

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class Flown:
    """What a flight for a page brought: the answer, for whom it was asked, and which state of devpi it shows."""

    wanted: Wanted
    answer: Answer
    view: View


class Gate:
    """The tween above devpi's. ``timeout``: seconds that devpi gives an upstream."""

    def __init__(
        self,
        store: PageStore,
        indexes: Indexes,
        bulkhead: Bulkhead,
        serverdir: Path,
        *,
        timeout: float,
        offline: Callable[[], bool],
    ) -> None:
        self._store = store
        self._indexes = indexes
        self._bulkhead = bulkhead
        self._timeout = timeout
        self._offline = offline
        self._stored = serverdir / "+files"
        self._flights: Flights[Flown] = Flights("page")
        self._downloads = Downloads(Private.of(serverdir).directory)

    def tween(self, handler: Handler) -> Handler:
        """What is called for each request, in front of ``handler``."""

        def gate(request: Any) -> Any:
            if request.environ.pop(_PASS, False):
                return handler(request)
            if not is_text(request):
                return Answer.of_text(400, "the address is not UTF-8").response()
            wanted = wanted_page(request)
            if wanted is not None:
                return self._page(request, wanted, handler)
            if self._is_cold_file(request):
                return self._file(request)
            return self._other(request, handler)

        return gate

    def _other(self, request: Any, handler: Handler) -> Any:
        self._indexes.follow(self._store.configured)
        try:
            return by_file(request, handler(request))
        finally:
            # Before anybody is told: what a write has made wrong is gone when it is acknowledged.
            self._store.catch_up(None if request.method not in ("GET", "HEAD") else self._committed(request))

    @staticmethod
    def _committed(request: Any) -> int:
        transaction = request.environ.get(_TRANSACTION)
        serial = getattr(transaction, "commit_serial", None)
        return -1 if serial is None else int(serial)

    # Files

    def _is_cold_file(self, request: Any) -> bool:
        """Whether devpi may have to download what is asked for. Who accepts its JSON is told about a file."""
        if request.method not in ("GET", "HEAD") or "application/json" in request.headers.get("Accept", ""):
            return False
        found = _FILE.fullmatch(request.path_info)
        # devpi reads the metadata of a wheel that is here from the wheel.
        # A path that can't be one is not there either.
        return found is not None and not os.path.exists(self._stored / found[0][1:].removesuffix(".metadata"))  # noqa: PTH110

    def _file(self, request: Any) -> Any:
        user, index = request.path_info.split("/")[1:3]
        mirrors = self._indexes.mirrors(f"{user}/{index}", configured=self._store.configured) or ()
        upstreams = [self._indexes.upstream(mirror) for mirror in mirrors]
        deadline = time.monotonic() + self._timeout * 2
        with contextlib.ExitStack() as stack:
            place = stack.enter_context(self._bulkhead.waiting(upstreams))
            if not place.may_stay:
                return busy()
            download = self._downloads.join(request, lambda asked: self._inside(request, asked))
            while not download.wait_for_headers(_SLICE):
                if not place.may_stay or time.monotonic() > deadline:
                    return busy()
            if download.failed:
                return Answer.of_text(502, "the file can't be had").response()
            body: Any = []
            if request.method == "GET":
                # The place is given up when the body has been sent, or nobody wants it any more.
                body = Body(download.body(lambda: place.may_stay), stack.pop_all())
            return Response(status=download.status, headerlist=list(download.headers), app_iter=body)

    def _inside(self, request: Any, asked: Any) -> Any:
        """devpi's answer, past this gate, and what it committed taken into account."""
        asked.environ[_PASS] = True
        response = request.invoke_subrequest(asked, use_tweens=True)
        self._store.catch_up(self._committed(asked))
        return response

    # Pages

    def _page(self, request: Any, wanted: Wanted, handler: Handler) -> Any:
        warm = self._warm(request, wanted, self._store.read)
        if warm is not None:
            warm.headers[KEPT] = "1"
            return warm
        mirrors = self._indexes.mirrors(wanted.stage, configured=self._store.configured) or ()
        if self._offline() or all(self._indexes.is_fresh(mirror, wanted.project) for mirror in mirrors):
            return self._ask(request, wanted, mirrors, handler).answer.response()
        stale = self._warm(request, wanted, self._store.read_stale)
        if stale is not None:
            return self._refreshed(request, wanted, mirrors, stale)
        return self._first(request, wanted, mirrors)

    def _warm(self, request: Any, wanted: Wanted, read: Callable[[Key, str], bytes | None]) -> Any:
        if wanted.name is None:
            return None
        packed = "gzip" in request.headers.get("Accept-Encoding", "")
        body = read(wanted.key, f"{wanted.name}.gz" if packed else wanted.name)
        if body is None:
            return None
        response = Response(body=body, content_type=_TYPES[wanted.name], charset="utf-8")
        response.headers["Vary"] = "Accept, Accept-Encoding, User-Agent"
        response.headers["Cache-Control"] = "no-cache"
        if packed:
            response.headers["Content-Encoding"] = "gzip"
        return response

    def _refreshed(self, request: Any, wanted: Wanted, mirrors: tuple[Mirror, ...], stale: Any) -> Any:
        """A new page if it comes soon, else the one that was right until just now."""
        if all(self._indexes.upstream(mirror).answers for mirror in mirrors):
            flight, _ = self._join(request, wanted, mirrors)
            if flight.wait(PATIENCE):
                fresh = self._warm(request, wanted, self._store.read)
                if fresh is not None:
                    return fresh
                flown = flight.outcome
                if flown.wanted == wanted and flown.answer.status < 500 and not self._is_outdated(flown):
                    return flown.answer.for_others(wanted).response()
        self._store.hold(wanted.key, RETRY)
        return stale

    def _first(self, request: Any, wanted: Wanted, mirrors: tuple[Mirror, ...]) -> Any:
        """Nobody has an answer: ask, or wait for who asks already."""
        upstreams = [self._indexes.upstream(mirror) for mirror in mirrors]
        deadline = time.monotonic() + self._timeout * (len(mirrors) + 1)
        with self._bulkhead.waiting(upstreams) as place:
            while place.may_stay:
                flight, mine = self._join(request, wanted, mirrors)
                while not flight.wait(_SLICE):
                    if not place.may_stay or time.monotonic() > deadline:
                        return busy()
                if (warm := self._warm(request, wanted, self._store.read)) is not None:
                    return warm
                flown = flight.outcome
                if mine and not self._is_outdated(flown):
                    return flown.answer.response()
                if wanted.name and flown.wanted == wanted and self._store.holds(wanted.project, flown.view):
                    return flown.answer.for_others(wanted).response()
            return busy()

    def _join(self, request: Any, wanted: Wanted, mirrors: tuple[Mirror, ...]) -> tuple[Flight[Flown], bool]:
        """The flight that asks one of these mirrors for the project already, or a new one. Of others nobody waits."""
        keys = [f"{mirror.name} {wanted.project}" for mirror in mirrors]
        return self._flights.join(keys, lambda: self._fly(request, wanted, mirrors))

    def _is_outdated(self, flown: Flown) -> bool:
        """Whether it says that there is nothing, and something came meanwhile: of a fetch that devpi had given up."""
        return flown.answer.shows_nothing and not self._store.holds(flown.wanted.project, flown.view)

    def _fly(self, request: Any, wanted: Wanted, mirrors: tuple[Mirror, ...]) -> Flown:
        asked = request.copy()
        with self._bulkhead.asking([self._indexes.upstream(mirror) for mirror in mirrors]):
            return self._ask(asked, wanted, mirrors, lambda asked: self._inside(request, asked))

    def _ask(self, request: Any, wanted: Wanted, mirrors: tuple[Mirror, ...], handler: Handler) -> Flown:
        """Ask devpi, in this thread, and keep the page where it can be kept."""
        began, mark = time.monotonic(), self._store.mark
        response = handler(request)
        answer = Answer(response.status_code, tuple(response.headers.items()), response.body)
        view = View(first=request.environ[_FIRST], own=request.environ[_TRANSACTION].commit_serial, mark=mark)
        self._store.catch_up(-1 if view.own is None else view.own)
        if answer.shows_nothing and (silent := self._silent(wanted, mirrors, began)):
            # devpi leaves out a base that does not answer, and then there is "no such project": not so.
            threadlog.warn("%s was not told of %s", silent, wanted.project)
            return Flown(wanted, Answer.of_text(502, f"{silent} did not answer for {wanted.project}"), view)
        if answer.status == 200 and wanted.name is not None:
            due = float("inf") if self._offline() else self._indexes.due(mirrors, wanted.project, began=began)
            self._store.put(wanted.key, wanted.name, answer.body, due=due, view=view)
        return Flown(wanted, answer, view)

    def _silent(self, wanted: Wanted, mirrors: tuple[Mirror, ...], began: float) -> str:
        """A mirror that was asked for the page since ``began`` and gave nothing; empty when there is none."""
        silent = (mirror.name for mirror in mirrors if self._indexes.gave_nothing(mirror, wanted.project, began=began))
        return next(silent, "")


def note_transaction(handler: Handler, registry: Any) -> Handler:
    """The tween below devpi's: it tells the gate which state of the database an answer shows."""
    keyfs = registry["xom"].keyfs

    def note(request: Any) -> Any:
        request.environ[_TRANSACTION] = keyfs.tx
        request.environ[_FIRST] = keyfs.tx.at_serial
        return handler(request)

    return note
