"""The middleware: every request passes it before devpi opens a transaction. Stored pages are answered here.

If devpi has to ask an upstream for a page, one request alone causes that (single flight). The other clients wait and
get its result: with devpi's own lock they would go on with an older view of the database, in which the page is empty
(docs/explanation/devpi-concurrent-first-requests.md). The way of a request is described in docs/explanation/server.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from devpi_server.log import threadlog
from devpi_server.views import SIMPLE_API_V1_JSON as JSON_TYPE

from deployer.protocol import BODY_ROUTE, NAMES_ROUTE, OFFLINE_HEADER
from deployer.server.cdn import VARY, SharedCaches
from deployer.server.devpi import offline_requests
from deployer.server.devpi.guarded import refused
from deployer.server.devpi.mirror_names import MirrorNames
from deployer.server.hosts import ASKED_HOST, MISDIRECTED, REFUSED, KnownHosts
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.canonical import CanonicalRequests
from deployer.server.middleware.files import FileRequests, Handler, Mirrors
from deployer.server.middleware.reading import INNER
from deployer.server.middleware.requests import (
    HTML,
    PageRequest,
    credentials,
    is_text,
    list_format,
    lists_names,
    may_ask,
    page_request,
    takes_gzip,
)
from deployer.server.middleware.responses import STORED_HEADER, SharedResponse, busy, send_file
from deployer.server.middleware.single_flight import CHECK_EVERY, PATIENCE, Flight, SingleFlight
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.render import Part, held_lines, to_html, to_json
from deployer.server.mirrors.serving import Served
from deployer.server.mirrors.source import RETRY
from deployer.server.pages.missed import MissedRequests
from deployer.server.pages.store import Key, PageStore, View, pack
from deployer.server.upstream.health import Upstream

_FIRST, _TRANSACTION = "deployer.first", "deployer.transaction"


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
        mirrors: Mirrors,
        bulkhead: Bulkhead,
        serverdir: Path,
        *,
        timeout: float,
        offline: Callable[[], bool],
        missed: MissedRequests,
        names: MirrorNames,
        hosts: KnownHosts,
        absolute: bool,
        readers: bool,
        caches: SharedCaches,
    ) -> None:
        """``absolute``: devpi is to write absolute addresses. ``readers``: a plugin decides who may read a file.
        ``caches``: between us and our clients."""
        self._caches = caches
        self._hosts, self._names = hosts, names
        self._store = store
        self._indexes, self._source, self._serving = mirrors.indexes, mirrors.source, mirrors.serving
        self._takeovers = mirrors.takeovers
        self._absolute = absolute
        self._bulkhead = bulkhead
        self._timeout = timeout
        self._offline, self._missed = offline, missed
        self._flights: SingleFlight[PageResult] = SingleFlight("page")
        self._files = FileRequests(
            mirrors,
            bulkhead,
            serverdir,
            timeout=timeout,
            offline=offline,
            missed=missed,
            readers=readers,
            configured=lambda: store.configured,
            other=self._other,
            inside=self._inside,
        )
        self._canonical = CanonicalRequests(
            mirrors,
            self._files,
            bulkhead,
            serverdir,
            timeout=timeout,
            offline=offline,
            store=store,
            links=mirrors.links,
            caches=caches,
        )

    def tween(self, handler: Handler) -> Handler:
        """The function that Pyramid calls for each request; ``handler``: the next tween."""

        def handle(request: Any) -> Any:
            if request.environ.pop(INNER, False):
                return handler(request)
            if not self._hosts.knows(request.environ.get(ASKED_HOST, "")):
                return SharedResponse.of_text(MISDIRECTED, REFUSED).to_pyramid()
            if not is_text(request):
                return SharedResponse.of_text(400, "the URL is not UTF-8").to_pyramid()
            if OFFLINE_HEADER not in request.headers:
                return self._routed(request, handler)
            with offline_requests.answering():
                return self._routed(request, handler)

        return handle

    def _routed(self, request: Any, handler: Handler) -> Any:
        page = page_request(request)
        if page is not None:
            return self._page(request, page, handler)
        view = self._canonical.answer(request, handler)
        return self._files.answer(request, handler) if view is None else view

    def mirrored(self, request: Any) -> Any:
        """The view of the upstreams that an index reads."""
        return self._canonical.mirrored(request)

    def _other(self, request: Any, handler: Handler) -> Any:
        self._indexes.refresh(self._store.configured)
        if request.method not in ("GET", "HEAD") and (crowd := self._verified(request)) is not None:
            return crowd
        if request.method == "DELETE" or lists_names(request):
            self._names.write()  # devpi lists an index, and deletes it, with the projects that it has names of
        upstreams = self._may_ask(request)
        with self._bulkhead.holding(upstreams) if upstreams else contextlib.nullcontext(True) as admitted:
            return self._listed(request, handler) if admitted else busy()

    def _listed(self, request: Any, handler: Handler) -> Any:
        """devpi's answer; a list of names in a media type that devpi does not know."""
        wanted = list_format(request)
        if wanted is None:
            return self._answer(request, handler)
        request.headers["Accept"] = JSON_TYPE if wanted.kind == "json" else "text/html"
        response = self._answer(request, handler)
        if response.status_code == HTTPStatus.OK:
            response.headers["Content-Type"] = wanted.content_type
        return response

    def _verified(self, request: Any) -> Any:
        """Have the password of a write verified before its transaction: one at a time may write, and hashes are slow.

        None, or the response when too many wait for that.
        """
        headers = credentials(request)
        if not headers:
            return None
        asked = type(request).blank(BODY_ROUTE, headers=headers)
        asked.environ |= {INNER: True, "REMOTE_ADDR": request.environ.get("REMOTE_ADDR", "")}
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
            if self._source.may_be_asked(mirror, project, again=again)
        ]

    def _answer(self, request: Any, handler: Handler) -> Any:
        try:
            return send_file(request, handler(request))
        finally:
            # Before the response: when a write is acknowledged, the pages that it changed are gone, and new rules hold.
            reads = request.method in ("GET", "HEAD")
            self._store.catch_up(self._committed(request) if reads else None)
            if not reads:
                self._indexes.refresh(self._store.configured)

    @staticmethod
    def _committed(request: Any) -> int:
        transaction = request.environ.get(_TRANSACTION)
        serial = getattr(transaction, "commit_serial", None)
        return -1 if serial is None else int(serial)

    def _inside(self, request: Any, asked: Any) -> Any:
        """devpi's response, past this middleware; what it committed is taken into account."""
        asked.environ[INNER] = True
        response = request.invoke_subrequest(asked, use_tweens=True)
        self._store.catch_up(self._committed(asked))
        return response

    # Pages

    def _page(self, request: Any, page: PageRequest, handler: Handler) -> Any:
        mirrors = self._indexes.mirrors(page.stage, configured=self._store.configured) or ()
        if offline_requests.asked():
            return self._ask(request, replace(page, name=None), mirrors, handler).response.to_pyramid()
        self._source.hasten(mirrors, page.project, request.headers.get("Cache-Control", ""), forget=self._store.forget)
        stored = self._stored_page(request, page, self._store.read)
        if stored is not None:
            stored.headers[STORED_HEADER] = "1"
            return stored
        if self._offline():
            response = self._ask(request, page, mirrors, handler).response
            if mirrors and (response.shows_nothing or response.status == HTTPStatus.BAD_GATEWAY):
                self._missed.project(page.stage, page.project)
            return response.to_pyramid(packed=takes_gzip(request))
        if all(self._source.is_fresh(mirror, page.project) for mirror in mirrors):
            return self._ask(request, page, mirrors, handler).response.to_pyramid(packed=takes_gzip(request))
        stale = self._stored_page(request, page, self._store.read_stale)
        if stale is not None:
            return self._refreshed(request, page, mirrors, stale)
        return self._first(request, page, mirrors)

    def _stored_page(self, request: Any, page: PageRequest, read: Callable[[Key, str], bytes | None]) -> Any:
        if page.name is None:
            return None
        packed = takes_gzip(request)
        body = read(page.key, f"{page.name}.gz" if packed else page.name)
        if body is None:
            return None
        return SharedResponse(200, self._headers(page), body, body if packed else b"").to_pyramid(packed=packed)

    def _headers(self, page: PageRequest) -> tuple[tuple[str, str], ...]:
        """Of an installer's page."""
        chosen = page.format or HTML
        varies = ("Vary", f"{VARY[chosen.kind]}, Accept-Encoding")
        return (("Content-Type", chosen.content_type), varies, ("Cache-Control", self._caches.pages))

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
                    return result.response.for_others(page).to_pyramid(packed=takes_gzip(request))
        self._store.extend(page.key, RETRY)
        return stale

    def _first(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...]) -> Any:
        """No page is stored: ask devpi, or wait for the request that asks already."""
        upstreams = [self._indexes.upstream(mirror) for mirror in mirrors]
        deadline = time.monotonic() + self._timeout * (len(mirrors) + 1)
        with self._bulkhead.waiting(upstreams) as permit:
            while permit.valid:
                flight, mine = self._join(request, page, mirrors)
                while not flight.wait(CHECK_EVERY):
                    if not permit.valid or time.monotonic() > deadline:
                        return busy()
                if mine and not self._is_outdated(flight.result):
                    return flight.result.response.to_pyramid(packed=takes_gzip(request))
                if (stored := self._stored_page(request, page, self._store.read)) is not None:
                    return stored
                result = flight.result
                if page.name and result.page == page and self._store.is_current(page.project, result.view):
                    return result.response.for_others(page).to_pyramid(packed=takes_gzip(request))
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
        if page.format is not None and not self._offline():
            served = self._serving.of_mirrors(page.stage, page.project)
            if served is not None and served.former:
                result = self._by_devpi(request, page, mirrors, handler)
                nothing = result.response.shows_nothing
                return replace(result, response=self._nothing(page, served.silent)) if nothing else result
            if served is not None and (page.up is not None and not self._absolute):
                return self._served(page, served)
        return self._by_devpi(request, page, mirrors, handler)

    def _served(self, page: PageRequest, served: Served) -> PageResult:
        """The page of mirrors alone."""
        view = View(first=served.first, own=None, mark=self._store.mark)
        if served.part is None:
            return PageResult(page, self._nothing(page, served.silent), view)
        self._note(page, {mirror.name for mirror, answer in served.answers if answer.kept is not None})
        body = _rendered(page, served.part, page.up or "")
        headers = [*self._headers(page)]
        if served.serial:
            headers.append(("X-PyPI-Last-Serial", served.serial))
        packed = b"" if page.name is None else pack(body)
        # Of another answer since then, the store hears after `view`: it refuses the page, or drops it.
        if page.name is not None and self._serving.are_last(served, page.project):
            self._store.put(page.key, page.name, body, packed, due=served.until, view=view)
        return PageResult(page, SharedResponse(200, tuple(headers), body, packed), view)

    def _note(self, page: PageRequest, origins: Collection[str]) -> None:
        """Record which indexes served a page."""
        if self._serving.may_be_ordered(page.stage):
            self._takeovers.note(page.stage, page.project, origins)

    def _nothing(self, page: PageRequest, silent: str) -> SharedResponse:
        if silent:
            # To leave out an index that does not answer would be reported as "no such project".
            threadlog.warn("upstream of %s did not answer for %s", silent, page.project)
            return SharedResponse.of_text(502, f"the upstream of {silent} did not answer for {page.project}")
        if self._serving.may_be_ordered(page.stage) and (taken := self._takeovers.held(page.stage, page.project)):
            index, held = taken
            reason, headers, body = refused(held, page.project, index)
            return SharedResponse(403, headers, body, reason=reason, ours=True)
        return SharedResponse.no_project(page)

    def _by_devpi(self, request: Any, page: PageRequest, mirrors: tuple[Mirror, ...], handler: Handler) -> PageResult:
        began, mark = time.monotonic(), self._store.mark
        if page.format is not None:
            request.headers["Accept"] = JSON_TYPE
        given = handler(request)
        response = SharedResponse(given.status_code, tuple(given.headers.items()), given.body)
        view = View(first=request.environ[_FIRST], own=request.environ[_TRANSACTION].commit_serial, mark=mark)
        self._store.catch_up(-1 if view.own is None else view.own)
        silent = (mirror.name for mirror in mirrors if self._source.failed_since(mirror, page.project, began))
        if response.shows_nothing:
            nothing = self._nothing(page, next(silent, ""))
            if nothing.status != HTTPStatus.NOT_FOUND:
                return PageResult(page, nothing, view)
        if response.status == 200 and page.format is not None:
            response = self._completed(request, page, response)
            if page.name is not None:
                response = replace(response, packed=pack(response.body))
                due = self._source.due(mirrors, page.project, began=began)
                self._store.put(page.key, page.name, response.body, response.packed, due=due, view=view)
        elif response.status == 200 and response.is_html:
            response = self._explained(page, response)
        return PageResult(page, response, view)

    def _explained(self, page: PageRequest, response: SharedResponse) -> SharedResponse:
        """devpi's page for browsers, and what is held back."""
        lines = "".join(f"<p>{line}</p>\n" for line in held_lines(self._serving.held(page.stage, page.project)))
        before, end, after = response.body.rpartition(b"</body>")
        headers = [(name, value) for name, value in response.headers if name.lower() != "content-length"]
        body = before + lines.encode(errors="replace") + end + after if end else response.body
        return SharedResponse(200, tuple(headers), body)

    def _completed(self, request: Any, page: PageRequest, response: SharedResponse) -> SharedResponse:
        part, above = self._serving.completed(response.body, page.project, page=request.path_info)
        self._note(page, {"/".join(listed.path.split("/", 2)[:2]) for listed in part.files})
        up = above if page.up is None or self._absolute else page.up
        headers = [
            (name, value)
            for name, value in response.headers
            if name.lower() not in ("content-type", "content-length", "vary", "cache-control")
        ]
        headers += self._headers(page)
        return SharedResponse(200, tuple(headers), _rendered(page, part, up))


def _rendered(page: PageRequest, part: Part, up: str) -> bytes:
    if page.format and page.format.kind == "json":
        return to_json(part, up)
    return to_html(part, up, title=f"{page.stage}: links for {page.project}")


def note_transaction(handler: Handler, registry: Any) -> Handler:
    """The tween below devpi's own: it records the state of the database that a response shows."""
    keyfs = registry["xom"].keyfs

    def note(request: Any) -> Any:
        request.environ[_TRANSACTION] = keyfs.tx
        request.environ[_FIRST] = keyfs.tx.at_serial
        return handler(request)

    return note
