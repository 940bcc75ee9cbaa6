"""Pages of the JSON API of upstreams (``/pypi/NAME/json``, ``/pypi/NAME/VERSION/json``), as they came.

They are kept as the pages of projects are: for the mirror's expiry, and as long as the upstream does not answer. Each
is a file: one line of JSON, its validators, and then the page. When the file was last confirmed is its modification
time.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from devpi_server.log import threadlog

from deployer.protocol import parsed
from deployer.server.mirrors.canonical import ApiAddress
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.mirrors.source import GONE, REMEMBERED, RETRY, Source, validators
from deployer.server.mirrors.store import UpstreamPages
from deployer.server.secret_files import write_cached
from deployer.server.upstream.client import NoAnswer


@dataclass(frozen=True)
class _Head:
    """``url``: the address that was asked. ``etag`` and ``modified``: its validators, empty without."""

    url: str
    etag: str
    modified: str


@dataclass(frozen=True)
class _Kept:
    head: _Head
    at: float
    body: bytes


@dataclass(frozen=True)
class _Refusal:
    """What an upstream did not send. ``until``: until when it is not asked again (monotonic)."""

    missing: bool
    until: float


class JsonApi:
    """All of them. Every method may be called from any thread."""

    def __init__(
        self, pages: UpstreamPages, source: Source, rules: MirrorRules, *, offline: Callable[[], bool]
    ) -> None:
        self._pages, self._source, self._rules, self._offline = pages, source, rules, offline
        self._lock = threading.Lock()
        self._refusals: OrderedDict[tuple[str, str | None], _Refusal] = OrderedDict()

    def known(self, mirror: Mirror, address: ApiAddress) -> bytes | None:
        """The page as last seen."""
        kept = self._read(mirror, address)
        return None if kept is None else kept.body

    def is_fresh(self, mirror: Mirror, address: ApiAddress) -> bool:
        """Whether :meth:`get` asks nobody."""
        if self._offline() or self._refusal(mirror, address) is not None:
            return True
        path = self._pages.api(mirror.name, address.name)
        with contextlib.suppress(OSError):
            return path is not None and time.time() < path.stat().st_mtime + mirror.expiry
        return False

    def get(self, mirror: Mirror, address: ApiAddress) -> bytes:
        """The page, asked for if what is known holds no longer; empty when the upstream has none.

        Raises NoAnswer when the upstream does not answer and no page is known.
        """
        kept = self._read(mirror, address)
        body = b"" if kept is None else kept.body
        if self._offline():
            return body
        refusal = self._refusal(mirror, address)
        if refusal is not None:
            return self._refused(refusal, body)
        if kept is not None and time.time() < kept.at + mirror.expiry:
            return body
        try:
            return self._ask(mirror, address, kept)
        except NoAnswer as error:
            threadlog.warn("%s: no JSON page of %s: %s", mirror.name, address.name, error)
            self._refuse(mirror, address, missing=False, seconds=RETRY)
            if not body:
                raise
            return body

    def _refused(self, refusal: _Refusal, body: bytes) -> bytes:
        if refusal.missing:
            return body if self._rules.keep_deleted else b""
        if not body:
            raise NoAnswer("it did not answer a moment ago")
        return body

    def _ask(self, mirror: Mirror, address: ApiAddress, kept: _Kept | None) -> bytes:
        conditions = validators(kept.head.etag, kept.head.modified) if kept else {}
        answer = self._source.ask(mirror, str(address.url(mirror.url)), {"Accept": "application/json", **conditions})
        if answer.status_code == HTTPStatus.NOT_MODIFIED and kept is not None:
            self._confirm(mirror, address)
            return kept.body
        if answer.status_code in GONE:
            return self._missing(mirror, address, kept)
        if answer.status_code != HTTPStatus.OK:
            raise NoAnswer(f"status {answer.status_code}")
        with self._source.alone(answer):
            _require_object(answer.content)
        self._keep(mirror, address, answer)
        return bytes(answer.content)

    def _missing(self, mirror: Mirror, address: ApiAddress, kept: _Kept | None) -> bytes:
        self._refuse(mirror, address, missing=True, seconds=self._rules.missing(mirror.expiry))
        if kept is not None and self._rules.keep_deleted:
            return kept.body
        path = self._pages.api(mirror.name, address.name)
        with contextlib.suppress(OSError):
            if path is not None:
                path.unlink()
        return b""

    # On the disk

    def _read(self, mirror: Mirror, address: ApiAddress) -> _Kept | None:
        path = self._pages.api(mirror.name, address.name)
        if path is None:
            return None
        try:
            at = path.stat().st_mtime
            first, _, body = path.read_bytes().partition(b"\n")
            head = _Head(**parsed(first))
        except (OSError, ValueError, TypeError):
            return None
        return _Kept(head, at, body) if head.url == address.url(mirror.url) else None

    def _keep(self, mirror: Mirror, address: ApiAddress, answer: Any) -> None:
        path = self._pages.api(mirror.name, address.name)
        if path is None:
            return
        validated = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
        head = _Head(str(address.url(mirror.url)), *validated)
        try:
            write_cached(path, json.dumps(vars(head)).encode() + b"\n" + answer.content)
        except OSError as error:  # a full disk: the client gets it anyway
            threadlog.warn("%s: can't keep the JSON page of %s: %s", mirror.name, address.name, error)

    def _confirm(self, mirror: Mirror, address: ApiAddress) -> None:
        path = self._pages.api(mirror.name, address.name)
        with contextlib.suppress(OSError):
            if path is not None:
                os.utime(path)

    # In memory

    def _refusal(self, mirror: Mirror, address: ApiAddress) -> _Refusal | None:
        with self._lock:
            found = self._refusals.get((mirror.name, address.url(mirror.url)))
        return found if found is not None and time.monotonic() < found.until else None

    def _refuse(self, mirror: Mirror, address: ApiAddress, *, missing: bool, seconds: float) -> None:
        key = (mirror.name, address.url(mirror.url))
        with self._lock:
            self._refusals[key] = _Refusal(missing, time.monotonic() + seconds)
            self._refusals.move_to_end(key)
            while len(self._refusals) > REMEMBERED:
                self._refusals.popitem(last=False)


def _require_object(content: bytes) -> None:
    """Raises NoAnswer for all but an object of JSON: a login page, for example."""
    try:
        found = parsed(content)
    except ValueError:
        raise NoAnswer("invalid page: it is not JSON") from None
    if not isinstance(found, dict):
        raise NoAnswer("invalid page: it is no object of JSON")
