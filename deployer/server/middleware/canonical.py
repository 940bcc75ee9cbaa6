"""Requests for the canonical view of a mirror (:mod:`deployer.server.mirrors.canonical`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyramid.response import Response

from deployer.protocol import MIRRORED_ROUTE, Mirrored
from deployer.server.cdn import NO_CACHE, VARY, SharedCaches
from deployer.server.devpi.guarded import refusal
from deployer.server.devpi.installed import default_mirror_url
from deployer.server.devpi.links import place
from deployer.server.json_text import dumps, loads
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.files import FileRequests, Handler, Mirrors
from deployer.server.middleware.requests import HTML, Format, negotiate
from deployer.server.middleware.responses import STORED_HEADER, SharedResponse, busy
from deployer.server.middleware.single_flight import CHECK_EVERY, PATIENCE, SingleFlight
from deployer.server.mirrors import canonical
from deployer.server.mirrors.canonical import Address, ApiAddress, FileAddress, PageAddress
from deployer.server.mirrors.canonical_links import CanonicalLinks
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.let_in import api_let_in, latest
from deployer.server.mirrors.render import Part, to_html, to_json
from deployer.server.mirrors.source import Answer
from deployer.server.pages.store import PageStore, View, pack
from deployer.server.secret_files import Private
from deployer.server.upstream.client import NoAnswer

CANONICAL = "canonical"
"""The name of the stored page, beside those that have our addresses."""
_NO_CACHE = ("Cache-Control", NO_CACHE)


class _Busy(Exception):
    """The client has waited long enough."""


class CanonicalRequests:
    """Answers these requests."""

    def __init__(
        self,
        mirrors: Mirrors,
        files: FileRequests,
        bulkhead: Bulkhead,
        serverdir: Path,
        *,
        timeout: float,
        offline: Callable[[], bool],
        store: PageStore,
        links: CanonicalLinks,
        caches: SharedCaches,
    ) -> None:
        self._indexes, self._source, self._api = mirrors.indexes, mirrors.source, mirrors.api
        self._files, self._bulkhead, self._directory = files, bulkhead, serverdir / "+files"
        self._companions = Private.of(serverdir).companions
        self._timeout, self._offline = timeout, offline
        self._store, self._links, self._caches = store, links, caches
        self._flights: SingleFlight[Any] = SingleFlight("canonical")

    def answer(self, request: Any, handler: Handler) -> Any:
        """The response; None for a request of another kind."""
        if request.path_info == MIRRORED_ROUTE:
            return self.mirrored(request)
        found = canonical.address_of(request.path_info)
        if found is None:
            return None
        index, address = found
        if request.method not in ("GET", "HEAD"):
            return _text(405, "the canonical view is read only")
        if self._indexes.mirrors(index, configured=self._store.configured) is None:
            return _text(404, f"there is no index {index}")
        mirror = self._indexes.mirror(index)
        if mirror is None:
            return _text(404, f"{index} is no mirror: only mirrors have a canonical view")
        return self._of(request, mirror, address, handler)

    def _of(self, request: Any, mirror: Mirror, address: Address | None, handler: Handler) -> Any:
        try:
            match address:
                case PageAddress():
                    return self._page(request, mirror, address.project)
                case FileAddress():
                    return self._file(request, mirror, address, handler)
                case ApiAddress():
                    return self._json(mirror, address)
                case None:
                    return _text(404, "the canonical view has no such address")
        except NoAnswer as error:
            return _text(502, f"the upstream of {mirror.name} did not answer: {error}")
        except _Busy:
            return busy()

    def mirrored(self, request: Any) -> Any:
        """Which upstreams the mirrors of an index have, and where files are: what a client has to answer for."""
        index = request.GET.get("index", "")
        mirrors = self._indexes.mirrors(index, configured=self._store.configured)
        if mirrors is None:
            return _text(404, f"there is no index {index}")
        found = [Mirrored(name=one.name, url=one.url, hosts=tuple(self._source.hosts(one))).json for one in mirrors]
        return Response(json_body={"index": index, "default": default_mirror_url(), "mirrors": found})

    # Pages

    def _page(self, request: Any, mirror: Mirror, project: str) -> Any:
        self._source.hasten([mirror], project, request.headers.get("Cache-Control", ""), forget=self._store.forget)
        # Nothing of devpi's database is on it.
        view = View(first=self._store.seen, own=None, mark=self._store.mark)
        get = partial(self._source.get, mirror, project)
        stored = self._offline() or self._source.is_fresh(mirror, project)
        if stored:
            answer = get()
        else:
            kept = self._source.known(mirror, project)
            known = None if kept is None or kept.head.gone else Answer(kept, current=False, until=0.0)
            known = known and self._source.let_in(mirror, project, known)
            answer = self._asked(mirror, f"simple {mirror.name} {project}", get, known)
        page = answer.read()
        if page is None or answer.kept is None:
            return _text(404, f"{mirror.name} has no project {project}")
        head = answer.kept.head
        part = canonical.part(page, head.url)
        if self._offline():
            part = Part(part.fields, [listed for listed in part.files if self._is_here(mirror, place(listed.file))])
        chosen = negotiate(request) or HTML
        if chosen.kind != "json":
            text = to_html(part, "", title=f"{mirror.name}: links for {project}")
            return _marked(self._sent(text, chosen, head.serial), stored)
        body = to_json(part, "")
        if answer.current and not self._offline() and self._source.is_last(mirror, project, answer):
            user, _, index = mirror.name.partition("/")
            self._store.put((user, index, project), CANONICAL, body, pack(body), due=answer.until, view=view)
        return _marked(self._sent(body, chosen, head.serial), stored)

    def _sent(self, body: bytes, chosen: Format, serial: str) -> Any:
        headers = [("Content-Type", chosen.content_type), ("Vary", VARY[chosen.kind])]
        headers.append(("Cache-Control", self._caches.pages))
        if serial:
            headers.append(("X-PyPI-Last-Serial", serial))
        return Response(body=body, headerlist=headers)

    def _is_here(self, mirror: Mirror, path: str) -> bool:
        return os.path.exists(self._directory / mirror.name / path)  # noqa: PTH110

    def _json(self, mirror: Mirror, address: ApiAddress) -> Any:
        if address.url(mirror.url) is None:
            return _text(404, f"the upstream of {mirror.name} has no JSON API: its address does not end with /simple/")
        stored = self._api.is_fresh(mirror, address)
        body = self._api_body(mirror, address)
        if not body:
            return _text(404, f"{mirror.name} has no {address.name}")
        return _marked(self._let_in(mirror, address, body) if mirror.rules.any else _api(body), stored)

    def _api_body(self, mirror: Mirror, address: ApiAddress) -> bytes:
        get = partial(self._api.get, mirror, address)
        if self._api.is_fresh(mirror, address):
            return get()
        known = self._api.known(mirror, address)
        body: bytes = self._asked(mirror, f"pypi {mirror.name} {address.name}", get, known)
        return body

    def _let_in(self, mirror: Mirror, address: ApiAddress, body: bytes) -> Any:
        """A page of the JSON API as the rules of the mirror let it in. Of a project whose latest release is held back,
        the page of the latest one that is let in."""
        kept = self._source.known(mirror, address.project)
        firsts = {} if kept is None else kept.head.first
        found = loads(body)
        held = api_let_in(found, mirror, address.project, firsts, time.time())
        if held is None:
            return _api(dumps(found))
        releases = found.get("releases")
        version = None if address.version else latest(releases if isinstance(releases, dict) else {})
        inner = self._api_body(mirror, ApiAddress(address.project, version)) if version else b""
        older = loads(inner) if inner else {}
        if not inner or api_let_in(older, mirror, address.project, firsts, time.time()) is not None:
            return refusal(held, address.name, mirror.name)
        return _api(dumps(older | {"releases": releases}))

    def _asked(self, mirror: Mirror, key: str, get: Callable[[], Any], known: Any) -> Any:
        """What ``get`` returns, called once for all who wait; ``known`` if that takes long, unless it is None.

        Raises NoAnswer and _Busy.
        """
        upstream = self._indexes.upstream(mirror)
        if known is not None and not upstream.answers:
            return known
        seconds = PATIENCE if known is not None else self._timeout * 2
        deadline = time.monotonic() + seconds

        def ask() -> Any:
            with self._bulkhead.asking([upstream]):
                return get()

        with self._bulkhead.waiting([upstream]) as permit:
            flight, _ = self._flights.join([key], ask)
            while not flight.wait(CHECK_EVERY):
                if not permit.valid or time.monotonic() > deadline:
                    if known is None:
                        raise _Busy
                    return known
        return flight.result

    # Files

    def _file(self, request: Any, mirror: Mirror, address: FileAddress, handler: Handler) -> Any:
        """The answer to a request for the same file at our own address of it."""
        with self._bulkhead.waiting([self._indexes.upstream(mirror)]) as permit:
            if not permit.valid:
                raise _Busy
            mark = self._links.mark
            found = self._source.find(mirror, address.filename, lambda kept: canonical.find(kept, address))
        if found is None and self._offline():
            return _text(502, "this server is offline, and knows no such file")
        if found is None and mirror.rules.any:  # not 404, after which a tunnel asks the upstream itself
            return _text(403, f"no page of {mirror.name} names this file, so its rules can't let it in")
        if found is None:
            return _text(404, f"no page of {mirror.name} names this file")
        project, file, _ = found
        path = place(file) + address.suffix
        if path.startswith("+f/"):  # what has no hash may be replaced
            to = (self._companions if address.suffix else self._directory) / mirror.name / path
            below = f"/hosts/{address.host}" if address.host else "/packages"
            if self._may_link(mirror, place(file)):
                self._links.add(mirror.name, below + address.path + address.suffix, project, to=to, mark=mark)
        request.path_info = f"/{mirror.name}/{path}"
        request.headers["Accept"] = "*/*"  # for JSON devpi sends a description of the file
        return self._files.answer(request, handler)

    def _may_link(self, mirror: Mirror, path: str) -> bool:
        """Whether nginx may send a file of the mirror by itself, by the rules that hold now: links are removed before
        others do."""
        now = self._indexes.mirror(mirror.name) == mirror
        return now and not (mirror.rules.any and self._source.decide(mirror, path).held)


def _marked(response: Any, stored: bool) -> Any:
    if stored:
        response.headers[STORED_HEADER] = "1"
    return response


def _api(body: bytes) -> Any:
    return Response(body=body, headerlist=[("Content-Type", "application/json"), _NO_CACHE])


def _text(status: int, text: str) -> Any:
    return SharedResponse.of_text(status, text).to_pyramid()
