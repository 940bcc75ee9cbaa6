"""devpi's HTTP client with keep-alive, a record of each upstream's health, and a circuit breaker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import anyio
import httpx
from devpi_server.httpclient import FatalResponse, HTTPClient
from devpi_server.log import threadlog

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


class Client(HTTPClient):
    """The HTTP client of devpi (its ``http``, which its own tests replace in the same way).

    ``offline``: whether requests are forbidden. ``may_get``: whether a URL may receive an Authorization header.
    ``may_push``: whether a release may be pushed to a URL.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        timeout: float,
        offline: Callable[[], bool],
        may_get: Callable[[str, str], bool],
        may_push: Callable[[object], bool],
    ) -> None:
        super().__init__(component_name="server", timeout=timeout)
        self._upstreams = upstreams
        self._offline = offline
        self._may_get = may_get
        self._may_push = may_push
        self.client.close()
        self.client = httpx.Client(
            **self._settings(), event_hooks={"request": [self._before], "response": [self._after]}
        )
        self._shared: httpx.AsyncClient | None = None

    def _settings(self) -> dict[str, Any]:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEPT_SECONDS
        )
        # A cookie of one mirror must not be sent for another one, whose credentials differ.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return {"headers": self.headers, "verify": self._ssl_context, "limits": limits, "cookies": cookies}

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
        self._upstreams.note_asked(address)
        seconds = timeout or self.timeout or 30.0
        wait = httpx.Timeout(seconds, connect=CONNECT * seconds, read=FIRST_BYTE * seconds)
        for again in (True, False):
            try:
                async with asyncio.timeout(WHOLE * seconds):
                    response = await self._async().get(
                        address, follow_redirects=allow_redirects, headers=extra_headers, timeout=wait
                    )
            except TimeoutError:
                endless = httpx.ReadTimeout("the answer does not end", request=httpx.Request("GET", address))
                return self._failed(address, endless), None
            except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                # The upstream may have closed a keep-alive connection at this moment.
                if again and not self._is_down(error):
                    continue
                return self._failed(address, error), None
            except self.Errors as error:
                return self._failed(address, error), None
            return self._page(address, response)
        raise AssertionError("the second try returns")

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

    @staticmethod
    def load() -> None:
        """Import what httpx imports with its first request, so that no client waits for it."""

        async def begin() -> None:
            anyio.Event()  # the first object of anyio loads its event loop backend

        asyncio.run(begin())

    def _is_down(self, error: httpx.RequestError) -> bool:
        return self._upstreams.of(str(error.request.url)).down

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
        try:
            return self.client.get(
                address, follow_redirects=allow_redirects, headers=extra_headers, timeout=timeout or self.timeout
            )
        except self.Errors as error:
            return self._failed(address, error)

    def stream(
        self, cstack: contextlib.ExitStack, method: str, url: Any, *, raise_on_error: bool = False, **more: Any
    ) -> Any:
        """Get an answer whose body is not read yet; a ``FatalResponse`` when that fails."""
        try:
            return super().stream(cstack, method, url, raise_on_error=True, **more)
        except self.Errors as error:
            fatal = self._failed(getattr(url, "url", url), error)
            if raise_on_error:
                raise
            return fatal

    def _failed(self, address: str, error: BaseException) -> FatalResponse:
        threadlog.warn("%s while getting %s: %s", type(error).__name__, address, error)
        if isinstance(error, httpx.TransportError) and not isinstance(error, NotSent):
            self._upstreams.of(str(error.request.url)).failed(id(error.request))
        return FatalResponse(address, repr(error))

    def _before(self, request: httpx.Request) -> None:
        if self._offline():
            raise NotSent("this server is offline", request=request)
        if request.method != "GET":  # a push, with credentials of its own
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
        if response.request.method != "GET":
            return
        upstream = self._answered(response)
        response.stream = _Observed(response.stream, upstream, id(response.request))

    async def _after_async(self, response: httpx.Response) -> None:
        upstream = self._answered(response)
        response.stream = _ObservedAsync(response.stream, upstream, id(response.request))

    def _answered(self, response: httpx.Response) -> Upstream:
        upstream = self._upstreams.of(str(response.request.url))
        upstream.answered(id(response.request), retry_after=_retry_after(response))
        return upstream


class NotSent(httpx.TransportError):
    """A request was not sent: offline, not allowed, or to an upstream that does not answer."""


def _retry_after(response: httpx.Response) -> float:
    if response.status_code not in (429, 503):
        return 0.0
    seconds = response.headers.get("Retry-After", "")
    return float(seconds) if seconds.isdecimal() else 0.0


class _Observed(httpx.SyncByteStream):
    def __init__(self, inner: Any, upstream: Upstream, request: int) -> None:
        self._inner, self._upstream, self._request = inner, upstream, request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._upstream.received(len(piece))
            yield piece

    def close(self) -> None:
        self._upstream.ended(self._request)
        self._inner.close()


class _ObservedAsync(httpx.AsyncByteStream):
    def __init__(self, inner: Any, upstream: Upstream, request: int) -> None:
        self._inner, self._upstream, self._request = inner, upstream, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._upstream.received(len(piece))
            yield piece

    async def aclose(self) -> None:
        self._upstream.ended(self._request)
        await self._inner.aclose()
