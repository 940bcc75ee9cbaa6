"""devpi's HTTP client with keep-alive, a record of each upstream's health, and a circuit breaker."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
from devpi_server.httpclient import FatalResponse, HTTPClient
from devpi_server.log import threadlog

from deployer.server.upstream.body import LARGEST_FILE, LARGEST_OTHER, Body, InvalidBody
from deployer.server.upstream.health import Upstream, Upstreams

KEPT_CONNECTIONS, KEPT_SECONDS = 20, 60.0
FIRST_BYTE = 0.6
"""Share of ``--request-timeout`` within which an answer must begin. devpi stops waiting for a page after the whole
time, but keeps the project's lock until an answer comes, which never happens when the upstream hangs."""
CONNECT = 0.3
"""Share of it within which a connection must be made."""
WHOLE = 10.0
"""Multiple of it that a whole page may take: devpi stores it in the background, and serves the known page."""
_JSON = "application/vnd.pypi.simple.v1+json"
_PAGES = (_JSON, "application/vnd.pypi.simple.v1+html", "text/html")
"""Media types of pages (PEP 691); pip accepts the same."""
_READS = ("GET", "HEAD")
_SMALL = "deployer.small"
"""Mark of a request whose answer is not kept as a file: it needs no reserve on the disk."""
_ENCODINGS = "gzip, deflate"
"""What can be decoded within bounds."""
LARGE = 1 << 20
"""Bytes after which a page waits for others of its upstream that are as large: one at a time may use memory."""


class Client(HTTPClient):
    """The HTTP client of devpi (its ``http``, which its own tests replace in the same way).

    ``offline``: whether requests are forbidden. ``may_get``: whether a URL may receive an Authorization header.
    ``may_push``: whether a release may be pushed to a URL. ``largest_page``: bytes that the page at a URL may have.
    ``has_room``: whether there is disk space for more of a file.
    """

    # The last two are of addresses that a page names. mypy takes devpi's tuple for one of exactly four.
    Errors = (*HTTPClient.Errors, httpx.InvalidURL, UnicodeError)  # type: ignore[assignment]

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        timeout: float,
        offline: Callable[[], bool],
        may_get: Callable[[str, str], bool],
        may_push: Callable[[object], bool],
        largest_page: Callable[[str], int],
        has_room: Callable[[], bool],
    ) -> None:
        super().__init__(component_name="server", timeout=timeout)
        self._upstreams = upstreams
        self._offline = offline
        self._may_get = may_get
        self._may_push = may_push
        self._largest_page = largest_page
        self._has_room = has_room
        self._large: dict[str, asyncio.Lock] = {}
        self._turns: dict[str, threading.Lock] = {}
        self.client.close()
        self.client = httpx.Client(
            **self._settings(), event_hooks={"request": [self._before], "response": [self._after]}
        )
        self._shared: httpx.AsyncClient | None = None
        self.page_of: Callable[[str], Callable[[], Any] | None] = lambda url: None
        """A function that answers instead of an upstream, for the page of a mirror."""

    def _settings(self) -> dict[str, Any]:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEPT_SECONDS
        )
        # A cookie of one mirror must not be sent for another one, whose credentials differ.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        headers = {**self.headers, "Accept-Encoding": _ENCODINGS}
        return {"headers": headers, "verify": self._ssl_context, "limits": limits, "cookies": cookies}

    def _async(self) -> httpx.AsyncClient:
        """One client for all pages, in devpi's event loop; devpi itself makes a client and connection for each page."""
        if self._shared is None:
            hooks: Any = {"request": [self._before_async], "response": [self._after_async]}
            self._shared = httpx.AsyncClient(**self._settings(), event_hooks=hooks)
        return self._shared

    async def async_get(
        self,
        url: Any,
        *,
        allow_redirects: bool,
        timeout: float | None = None,
        extra_headers: dict[str, str] | None = None,
    ) -> tuple[Any, str | None]:
        """Get a page and its text; a ``FatalResponse`` when that fails."""
        address = getattr(url, "url", url)
        known = self.page_of(address)
        if known is not None:
            found = await asyncio.to_thread(known)
            return found, getattr(found, "text", None)
        seconds = timeout or self.timeout or 30.0
        wait = httpx.Timeout(seconds, connect=CONNECT * seconds, read=FIRST_BYTE * seconds)
        for again in (True, False):
            try:
                async with asyncio.timeout(WHOLE * seconds):
                    response = await self._whole(address, follow=allow_redirects, headers=extra_headers, wait=wait)
            except TimeoutError:
                endless = httpx.ReadTimeout("the answer does not end", request=httpx.Request("GET", address))
                return self._failed(address, endless), None
            except InvalidBody as error:
                threadlog.warn("invalid page: %s has %s", address, error)
                return FatalResponse(address, f"invalid page: {error}"), None
            except self.Errors as error:
                if again and self._may_ask_again(error):
                    continue
                return self._failed(address, error), None
            return self._page(address, response)
        raise AssertionError("the second try returns")

    async def _whole(
        self, address: str, *, follow: bool, headers: dict[str, str] | None, wait: httpx.Timeout
    ) -> httpx.Response:
        """The answer with its body. Raises InvalidBody."""
        asked = self._async().stream("GET", address, follow_redirects=follow, headers=headers, timeout=wait)
        async with asked as response, contextlib.AsyncExitStack() as alone:
            with _body(response, self._largest_page(address)) as body:
                is_large = False
                async for piece in response.aiter_raw():
                    for size in body.feed(piece):
                        if not is_large and size > LARGE:
                            is_large = True
                            origin = self._upstreams.of(str(response.request.url)).origin
                            await alone.enter_async_context(self._large.setdefault(origin, asyncio.Lock()))
                return _read(response, body)

    def _page(self, address: str, response: httpx.Response) -> tuple[Any, str | None]:
        if response.status_code >= 300:
            return response, None
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind not in _PAGES:
            threadlog.warn("invalid page: %s has the content type %r", address, kind)
            return FatalResponse(address, f"invalid page: content type {kind!r}"), None
        if kind == _JSON:  # devpi finds no links in it if the type has parameters
            response.headers["Content-Type"] = _JSON
        return response, response.text

    def _may_ask_again(self, error: BaseException) -> bool:
        """Whether a read may have failed only because the upstream closed a keep-alive connection at that moment."""
        if not isinstance(error, httpx.RemoteProtocolError | httpx.ReadError | httpx.WriteError):
            return False
        upstream = self._upstreams.of(str(error.request.url))
        if upstream.down:
            return False
        upstream.ended(id(error.request))
        return True

    def get(
        self,
        url: Any,
        *,
        allow_redirects: bool,
        timeout: float | None = None,
        extra_headers: dict[str, str] | None = None,
    ) -> Any:
        """Get a whole answer; a ``FatalResponse`` when that fails."""
        address = getattr(url, "url", url)
        for again in (True, False):
            try:
                return self._whole_answer(address, allow_redirects, extra_headers, timeout or self.timeout)
            except InvalidBody as error:
                return FatalResponse(address, f"invalid answer: {error}")
            except self.Errors as error:
                if again and self._may_ask_again(error):
                    continue
                return self._failed(address, error)
        raise AssertionError("the second try returns")

    def _whole_answer(
        self, address: str, follow: bool, headers: dict[str, str] | None, seconds: float | None
    ) -> httpx.Response:
        asked = self.client.stream("GET", address, follow_redirects=follow, headers=headers, timeout=seconds)
        with asked as response, _body(response, self._largest_page(address)) as body:
            for piece in response.iter_raw():
                for _size in body.feed(piece):
                    pass
            return _read(response, body)

    def page(self, address: str, *, headers: dict[str, str]) -> httpx.Response:
        """Get a page: an answer of any status, with its body decoded. Raises NoAnswer."""
        seconds = self.timeout or 30.0
        wait = httpx.Timeout(seconds, connect=CONNECT * seconds, read=FIRST_BYTE * seconds)
        for again in (True, False):
            try:
                return self._whole_page(address, headers, wait, until=time.monotonic() + WHOLE * seconds)
            except InvalidBody as error:
                raise NoAnswer(f"invalid page: {error}") from None
            except self.Errors as error:
                if again and self._may_ask_again(error):
                    continue
                raise NoAnswer(self._failed(address, error).reason_phrase) from None
        raise AssertionError("the second try returns")

    def _whole_page(
        self, address: str, headers: dict[str, str], wait: httpx.Timeout, *, until: float
    ) -> httpx.Response:
        asked = self.client.stream(
            "GET", address, follow_redirects=True, headers=headers, timeout=wait, extensions={_SMALL: True}
        )
        with (
            asked as response,
            _body(response, self._largest_page(address)) as body,
            contextlib.ExitStack() as alone,
        ):
            is_large = False
            for piece in response.iter_raw():
                for size in body.feed(piece):
                    if not is_large and size > LARGE:
                        is_large = True
                        origin = self._upstreams.of(str(response.request.url)).origin
                        alone.enter_context(self._turns.setdefault(origin, threading.Lock()))
                    if time.monotonic() > until:
                        raise httpx.ReadTimeout("the answer does not end", request=response.request)
            return _read(response, body)

    def stream(
        self, cstack: contextlib.ExitStack, method: str, url: Any, *, raise_on_error: bool = False, **more: Any
    ) -> Any:
        """Get an answer whose body is not read yet; a ``FatalResponse`` when that fails."""
        for again in (method in _READS, False):
            try:
                return super().stream(cstack, method, url, raise_on_error=True, **more)
            except self.Errors as error:
                if again and self._may_ask_again(error):
                    continue
                fatal = self._failed(getattr(url, "url", url), error)
                if raise_on_error:
                    raise
                return fatal
        raise AssertionError("the second try returns")

    def _failed(self, address: str, error: BaseException) -> FatalResponse:
        threadlog.warn("%s while getting %s: %s", type(error).__name__, address, error)
        if isinstance(error, httpx.TransportError) and not isinstance(error, NotSent):
            self._upstreams.of(str(error.request.url)).failed(id(error.request))
        return FatalResponse(address, repr(error))

    def _before(self, request: httpx.Request) -> None:
        if self._offline():
            raise NotSent("this server is offline", request=request)
        if request.method not in _READS:  # a push, with credentials of its own
            if not self._may_push(request.url):
                raise NotSent("not a push target of this server", request=request)
            return
        authorization = request.headers.get("Authorization")
        if authorization is not None and not self._may_get(str(request.url), authorization):
            # devpi sends a mirror's credentials to any host that a link of its page names.
            del request.headers["Authorization"]
        if not self._upstreams.of(str(request.url)).begin(id(request)):
            raise NotSent("the upstream failed a moment ago and is not asked again yet", request=request)

    async def _before_async(self, request: httpx.Request) -> None:
        self._before(request)

    def _after(self, response: httpx.Response) -> None:
        if response.request.method not in _READS:
            return
        upstream = self._answered(response)
        has_room = self._has_room if _SMALL not in response.request.extensions else _always
        response.stream = _Observed(response.stream, upstream, response, most=_most(response), has_room=has_room)

    async def _after_async(self, response: httpx.Response) -> None:
        upstream = self._answered(response)
        response.stream = _ObservedAsync(response.stream, upstream, response, most=_most(response))

    def _answered(self, response: httpx.Response) -> Upstream:
        upstream = self._upstreams.of(str(response.request.url))
        upstream.answered(id(response.request), retry_after=_retry_after(response))
        return upstream


def _body(response: httpx.Response, most: int) -> Body:
    is_page = response.status_code == 200
    return Body(response.headers.get("Content-Encoding", ""), most=most if is_page else LARGEST_OTHER)


def _read(response: httpx.Response, body: Body) -> httpx.Response:
    """``response``, with a body that is read and decoded. Raises InvalidBody."""
    if not body.is_whole:
        raise InvalidBody("an encoded body that breaks off")
    headers = [
        (name, value)
        for name, value in response.headers.multi_items()
        if name not in ("content-encoding", "content-length", "transfer-encoding")
    ]
    return httpx.Response(
        response.status_code,
        headers=headers,
        content=bytes(body.decoded),
        request=response.request,
        history=response.history,
        extensions={
            key: value for key, value in response.extensions.items() if key in ("http_version", "reason_phrase")
        },
    )


def _always() -> bool:
    return True


def _most(response: httpx.Response) -> int:
    """Bytes that may come, as sent. httpx reads the body of a redirect to its end, and would decode it."""
    if not response.has_redirect_location:
        return LARGEST_FILE
    response.headers.pop("Content-Encoding", None)
    return LARGEST_OTHER


class NoAnswer(Exception):
    """The upstream gave no answer that can be used; the message says why."""


class NotSent(httpx.TransportError):
    """A request was not sent: offline, not allowed, or to an upstream that does not answer."""


def _retry_after(response: httpx.Response) -> float:
    if response.status_code not in (429, 503):
        return 0.0
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else 0.0


class _Observed(httpx.SyncByteStream):
    """A body on its way: counted, and broken off when it has more than ``most`` bytes or the disk is nearly full."""

    def __init__(
        self,
        inner: Any,
        upstream: Upstream,
        response: httpx.Response,
        *,
        most: int,
        has_room: Callable[[], bool],
    ) -> None:
        self._inner, self._upstream, self._request = inner, upstream, response.request
        self._most, self._has_room = most, has_room
        length = response.headers.get("Content-Length", "")
        self._length = int(length) if length.isdecimal() else 0

    def __iter__(self) -> Iterator[bytes]:
        came = 0
        for piece in self._inner:
            came += len(piece)
            _check(max(came, self._length), self._most, self._request)
            if not self._has_room():
                raise httpx.ReadError("the disk is nearly full", request=self._request)
            self._upstream.received(len(piece))
            yield piece

    def close(self) -> None:
        self._upstream.ended(id(self._request))
        self._inner.close()


class _ObservedAsync(httpx.AsyncByteStream):
    def __init__(self, inner: Any, upstream: Upstream, response: httpx.Response, *, most: int) -> None:
        self._inner, self._upstream, self._request, self._most = inner, upstream, response.request, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        came = 0
        async for piece in self._inner:
            came += len(piece)
            _check(came, self._most, self._request)
            self._upstream.received(len(piece))
            yield piece

    async def aclose(self) -> None:
        self._upstream.ended(id(self._request))
        await self._inner.aclose()


def _check(came: int, most: int, request: httpx.Request) -> None:
    if came > most:
        raise httpx.DecodingError(f"more than {most} bytes", request=request)
