"""Files of mirrors: those that are not here yet, and what belongs to each; all others are devpi's."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from pyramid.response import Response

from deployer.server.devpi import offline_requests
from deployer.server.devpi.guarded import refusal
from deployer.server.devpi.replication import is_member
from deployer.server.guard.rules import Held
from deployer.server.guard.sendable import Sendable
from deployer.server.middleware.bulkhead import Bulkhead, Permit
from deployer.server.middleware.downloads import Download, DownloadFailed, Downloads, TooManyDownloads
from deployer.server.middleware.responses import SharedResponse, StreamedBody, busy
from deployer.server.middleware.single_flight import CHECK_EVERY, SingleFlight
from deployer.server.mirrors.canonical_links import CanonicalLinks
from deployer.server.mirrors.companions import SUFFIXES, TYPES, Companions
from deployer.server.mirrors.files import FETCHED_HEADER, FileRefused, FileResponse, Found, RemoteFiles, cache_control
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.json_api import JsonApi
from deployer.server.mirrors.ranges import Range
from deployer.server.mirrors.serving import Serving
from deployer.server.mirrors.source import Source
from deployer.server.mirrors.takeovers import Takeovers
from deployer.server.pages.missed import MissedRequests
from deployer.server.secret_files import Private

_FILE = re.compile(r"/([^+/]+/[^+/]+)/(\+[ef]/.+)")

_GONE = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class Mirrors:
    """What the server knows and does of mirrors."""

    indexes: Indexes
    source: Source
    serving: Serving
    files: RemoteFiles
    companions: Companions
    api: JsonApi
    links: CanonicalLinks
    sendable: Sendable
    takeovers: Takeovers


class FileRequests:
    """Answers requests for files."""

    def __init__(
        self,
        mirrors: Mirrors,
        bulkhead: Bulkhead,
        serverdir: Path,
        *,
        timeout: float,
        offline: Callable[[], bool],
        missed: MissedRequests,
        readers: bool,
        configured: Callable[[], int],
        other: Callable[[Any, Handler], Any],
        inside: Callable[[Any, Any], Any],
    ) -> None:
        """``configured``: the serial of the last change of any index. ``other``: devpi's answer to a request.
        ``inside``: its answer to a request within another one."""
        self._indexes, self._source = mirrors.indexes, mirrors.source
        self._remote, self._companions, self._sendable = mirrors.files, mirrors.companions, mirrors.sendable
        self._bulkhead, self._timeout, self._offline, self._readers = bulkhead, timeout, offline, readers
        self._configured, self._other, self._inside = configured, other, inside
        self._missed = missed
        self._files = serverdir / "+files"
        self._downloads = Downloads(Private.of(serverdir).directory)
        self._found: SingleFlight[bytes] = SingleFlight("companion")

    def answer(self, request: Any, handler: Handler) -> Any:
        """A file that is not here, or what belongs to a mirror's file; anything else is devpi's."""
        try:
            return self._answer(request, handler)
        except TooManyDownloads:
            return busy()

    def _answer(self, request: Any, handler: Handler) -> Any:
        found = _FILE.fullmatch(request.path_info)
        leads_out = ".." in request.path_info.split("/")  # nothing on the disk is looked up by such a path
        if found is None or leads_out or request.method not in ("GET", "HEAD"):
            return self._other(request, handler)
        index, path = found.groups()
        self._indexes.refresh(self._configured())
        mirror = self._indexes.mirror(index)
        suffix = next((suffix for suffix in SUFFIXES if path.endswith(suffix)), "")
        path = path.removesuffix(suffix)
        held = None if mirror is None or is_member(request) else self._held(mirror, path)
        if held is not None:
            return refusal(held, path.rpartition("/")[2], index)
        is_here = os.path.exists(self._files / index / path)  # noqa: PTH110
        if mirror is not None and suffix and not self._readers:
            if is_here and not self._offline() and self._remote.is_due(mirror, path):
                self._renew(mirror, path)
            may_ask = not is_here and not self._offline()
            if not (may_ask and self._companions.is_due(mirror, path, suffix)):
                content = self._companions.kept(index, path, suffix)
                if content is not None:
                    return _companion(content, path, suffix)
        if mirror is None or self._offline() or self._readers:
            return self._devpi_file(request, handler, mirror, path, is_here=is_here)
        if is_here and not suffix:
            if self._remote.is_due(mirror, path):
                self._renew(mirror, path)
            response = self._here(request, handler, path)
            if response.status_code not in _GONE or os.path.exists(self._files / index / path):  # noqa: PTH110
                return response  # otherwise it was pruned a moment ago
        with contextlib.ExitStack() as stack:
            permit = stack.enter_context(self._bulkhead.waiting([self._indexes.upstream(mirror)]))
            remote = self._remote_file(mirror, path) if permit.valid else None
            if not permit.valid:
                return busy()
            if remote is not None and suffix:
                return self._companion(request, remote, suffix, lambda: permit.valid)
            if remote is not None and "application/json" not in request.headers.get("Accept", ""):
                return self._mirrored(request, remote, permit, stack)
        return self._devpi_file(request, handler, mirror, path, is_here=is_here)

    def _held(self, mirror: Mirror, path: str) -> Held | None:
        """Why the rules of the mirror hold a file back; nginx may send a file that they let in."""
        if not mirror.rules.any or self._sendable.is_let_in(mirror.name, mirror.rules, path):
            return None
        with self._bulkhead.waiting([self._indexes.upstream(mirror)]) as permit:
            found = self._source.decide(mirror, path, ask=permit.valid)
        if found.held is None and found.listed:  # any other path may stand for a file that is held back
            self._sendable.let_in(mirror.name, mirror.rules, path, SUFFIXES)
        return found.held

    def _here(self, request: Any, handler: Handler, path: str) -> Any:
        """devpi's answer with a file that is here."""
        response = self._other(request, handler)
        if "Cache-Control" in response.headers:
            response.headers["Cache-Control"] = cache_control(path)
        return response

    def _remote_file(self, mirror: Mirror, path: str) -> Found | None:
        found = self._source.file(mirror, path)
        return None if found is None else Found(mirror, found[0], found[1], path)

    def _renew(self, mirror: Mirror, path: str) -> None:
        """Get a file without a hash again if the upstream has replaced it, and answers."""
        with self._bulkhead.waiting([self._indexes.upstream(mirror)]) as permit:
            remote = self._remote_file(mirror, path) if permit.valid else None
            if remote is not None:
                with contextlib.suppress(DownloadFailed, TooManyDownloads):
                    self._download(remote).wait()

    def _devpi_file(self, request: Any, handler: Handler, mirror: Mirror | None, path: str, *, is_here: bool) -> Any:
        """devpi's answer. It gets the entry of a file of which it does not know yet."""
        if is_here or mirror is None:
            return self._here(request, handler, path) if is_here else self._other(request, handler)
        if self._offline():
            return self._missing(mirror, path)
        remote = self._remote_file(mirror, path)
        if remote is not None:
            self._remote.enter(remote)
        if "application/json" in request.headers.get("Accept", ""):
            return self._other(request, handler)
        with contextlib.ExitStack() as stack:
            permit = stack.enter_context(self._bulkhead.waiting([self._indexes.upstream(mirror)]))
            if not permit.valid:
                return busy()
            download = self._downloads.join_request(request, lambda asked: self._inside(request, asked))
            return self._downloaded(request, download, permit, stack)

    def _missing(self, mirror: Mirror, path: str) -> Any:
        """The answer of an offline server with a file that is not here."""
        filename = path.rpartition("/")[2]
        if not offline_requests.asked():
            self._missed.file(mirror.name, filename)
        return SharedResponse.of_text(502, f"this server is offline, and has no {filename}").to_pyramid()

    def _mirrored(self, request: Any, remote: Found, permit: Permit, stack: contextlib.ExitStack) -> Any:
        if remote.mirror.external:
            return Response(status=302, headerlist=[("Location", remote.file["url"])])
        try:
            if request.method == "HEAD":
                return Response(status=200, headerlist=list(self._remote.head(remote).items()), app_iter=[])
            asked = Range.of(request.headers.get("Range", ""))
            if asked is not None and asked != Range(0):
                part = self._remote.part(remote, asked.header)
                if part.status_code != HTTPStatus.OK:
                    return self._part(part, permit, stack)
                return self._downloaded(request, self._download(remote, part), permit, stack)
        except FileRefused as refused:
            return _refused(refused)
        return self._downloaded(request, self._download(remote), permit, stack)

    def _whole(self, remote: Found, answer: FileResponse | None) -> None:
        try:
            self._download(remote, answer).wait()
        except DownloadFailed as error:
            raise FileRefused(str(error)) from None
        except TooManyDownloads:
            raise FileRefused("too many files are on their way", status=HTTPStatus.SERVICE_UNAVAILABLE) from None

    def _download(self, remote: Found, answer: FileResponse | None = None) -> Download:
        """The download of a file; ``answer``: the whole file that an upstream has begun to send."""
        began = False
        try:
            download, began = self._downloads.join(
                (f"{remote.mirror.name}/{remote.path}",), lambda: answer or self._remote.fetch(remote)
            )
        finally:
            if answer is not None and not began:
                answer.close()
        return download

    @staticmethod
    def _part(part: FileResponse, permit: Permit, stack: contextlib.ExitStack) -> Any:
        def chunks() -> Iterator[bytes]:
            for chunk in part.app_iter:
                if not permit.valid:
                    return
                yield chunk

        body: Any = StreamedBody(chunks(), stack.pop_all())
        return Response(status=part.status_code, headerlist=list(part.headers.items()), app_iter=body)

    def _downloaded(self, request: Any, download: Download, permit: Permit, stack: contextlib.ExitStack) -> Any:
        deadline = time.monotonic() + self._timeout * 2
        while not download.wait_for_headers(CHECK_EVERY):
            if not permit.valid or time.monotonic() > deadline:
                return busy()
        if download.failed:
            if isinstance(download.error, FileRefused):
                return _refused(download.error)
            return SharedResponse.of_text(502, "the file can't be downloaded").to_pyramid()
        body: Any = []
        if request.method == "GET":
            # The permit is released when the body has been sent, or the client has disconnected.
            body = StreamedBody(download.body(lambda: permit.valid), stack.pop_all())
        return Response(status=download.status, headerlist=list(download.headers), app_iter=body)

    def _companion(self, request: Any, remote: Found, suffix: str, may_wait: Callable[[], bool]) -> Any:
        flight, _ = self._found.join(
            [f"{remote.mirror.name}/{remote.path}{suffix}"],
            lambda: self._companions.get(remote, suffix, whole=lambda answer: self._whole(remote, answer)),
        )
        deadline = time.monotonic() + self._timeout * 2
        while not flight.wait(CHECK_EVERY):
            if not may_wait() or time.monotonic() > deadline:
                return busy()
        try:
            response = _companion(flight.result, remote.path, suffix)
        except FileRefused as refused:
            return _refused(refused)
        response.headers[FETCHED_HEADER] = "no"
        return response


def _companion(content: bytes, path: str, suffix: str) -> Any:
    headers = [("Content-Type", TYPES[suffix]), ("Cache-Control", cache_control(path))]
    return Response(body=content, headerlist=headers)


def _refused(refused: FileRefused) -> Any:
    return SharedResponse.of_text(refused.status, str(refused)).to_pyramid()
