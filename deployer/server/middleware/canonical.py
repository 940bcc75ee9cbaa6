"""Requests for the canonical view of a mirror (:mod:`deployer.server.mirrors.canonical`)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pyramid.response import Response

from deployer.protocol import FILE_HOSTS_HEADER, MIRRORED_ROUTE, Mirrored
from deployer.server.devpi.installed import default_mirror_url
from deployer.server.devpi.links import place
from deployer.server.middleware.bulkhead import Bulkhead
from deployer.server.middleware.files import FileRequests, Handler, Mirrors
from deployer.server.middleware.requests import HTML, negotiate
from deployer.server.middleware.responses import STORED_HEADER, SharedResponse, busy
from deployer.server.middleware.single_flight import CHECK_EVERY, PATIENCE, SingleFlight
from deployer.server.mirrors import canonical
from deployer.server.mirrors.canonical import Address, ApiAddress, FileAddress, PageAddress
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.render import Part, to_html, to_json
from deployer.server.mirrors.source import Answer
from deployer.server.mirrors.store import file_hosts
from deployer.server.upstream.client import NoAnswer

_NO_CACHE = ("Cache-Control", "no-cache")


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
        configured: Callable[[], int],
        forget: Callable[[str], None],
    ) -> None:
        """``configured``: the serial of the last change of any index. ``forget``: a project's stored pages."""
        self._indexes, self._source, self._api = mirrors.indexes, mirrors.source, mirrors.api
        self._files, self._bulkhead, self._directory = files, bulkhead, serverdir / "+files"
        self._timeout, self._offline = timeout, offline
        self._configured, self._forget = configured, forget
        self._flights: SingleFlight[Any] = SingleFlight("canonical")

    def answer(self, request: Any, handler: Handler) -> Any:
        """The response; None for a request of another kind."""
        if request.path_info == MIRRORED_ROUTE:
            return self._mirrored(request)
        found = canonical.address_of(request.path_info)
        if found is None:
            return None
        index, address = found
        if request.method not in ("GET", "HEAD"):
            return _text(405, "the canonical view is read only")
        if self._indexes.mirrors(index, configured=self._configured()) is None:
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

    def _mirrored(self, request: Any) -> Any:
        """Which upstreams the mirrors of an index have, and where files are: what a client has to answer for."""
        index = request.GET.get("index", "")
        mirrors = self._indexes.mirrors(index, configured=self._configured())
        if mirrors is None:
            return _text(404, f"there is no index {index}")
        found = [Mirrored(name=one.name, url=one.url, hosts=tuple(self._source.hosts(one))).json for one in mirrors]
        return Response(json_body={"index": index, "default": default_mirror_url(), "mirrors": found})

    # Pages

    def _page(self, request: Any, mirror: Mirror, project: str) -> Any:
        self._source.hasten([mirror], project, request.headers.get("Cache-Control", ""), forget=self._forget)
        get = partial(self._source.get, mirror, project)
        stored = self._offline() or self._source.is_fresh(mirror, project)
        if stored:
            answer = get()
        else:
            kept = self._source.known(mirror, project)
            known = None if kept is None or kept.head.gone else Answer(kept, current=False, until=0.0)
            answer = self._asked(mirror, f"simple {mirror.name} {project}", get, known)
        page = answer.read()
        if page is None or answer.kept is None:
            return _text(404, f"{mirror.name} has no project {project}")
        head = answer.kept.head
        part = canonical.part(page, head.url)
        if self._offline():
            part = Part(part.fields, [listed for listed in part.files if self._is_here(mirror, place(listed.file))])
        response = _rendered(request, part, f"{mirror.name}: links for {project}", head.serial)
        return _marked(response) if stored else response

    def _is_here(self, mirror: Mirror, path: str) -> bool:
        return os.path.exists(self._directory / mirror.name / path)  # noqa: PTH110

    def _json(self, mirror: Mirror, address: ApiAddress) -> Any:
        if address.url(mirror.url) is None:
            return _text(404, f"the upstream of {mirror.name} has no JSON API: its address does not end with /simple/")
        get = partial(self._api.get, mirror, address)
        stored = self._api.is_fresh(mirror, address)
        if stored:
            body = get()
        else:
            known = self._api.known(mirror, address)
            body = self._asked(mirror, f"pypi {mirror.name} {address.name}", get, known)
        if not body:
            return _text(404, f"{mirror.name} has no {address.name}")
        response = Response(body=body, headerlist=[("Content-Type", "application/json"), _NO_CACHE])
        return _marked(response) if stored else response

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
            found = self._source.find(mirror, address.filename, lambda kept: canonical.find(kept, address))
        if found is None:
            return _text(404, f"no page of {mirror.name} names this file")
        request.path_info = f"/{mirror.name}/{place(found[1])}{address.suffix}"
        request.headers["Accept"] = "*/*"  # for JSON devpi sends a description of the file
        return self._files.answer(request, handler)


def _rendered(request: Any, part: Part, title: str, serial: str) -> Any:
    chosen = negotiate(request) or HTML
    body = to_json(part, "") if chosen.kind == "json" else to_html(part, "", title=title)
    headers = [("Content-Type", chosen.content_type), ("Vary", "Accept, User-Agent"), _NO_CACHE]
    headers.append((FILE_HOSTS_HEADER, ",".join(sorted(file_hosts(listed.file for listed in part.files)))))
    if serial:
        headers.append(("X-PyPI-Last-Serial", serial))
    return Response(body=body, headerlist=headers)


def _marked(response: Any) -> Any:
    response.headers[STORED_HEADER] = "1"
    return response


def _text(status: int, text: str) -> Any:
    return SharedResponse.of_text(status, text).to_pyramid()
