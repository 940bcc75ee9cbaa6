"""devpi's HTTP client with connections that are kept, an eye on each upstream, and no question to one that is gone."""

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
"""The part of ``--request-timeout`` in which an answer must begin: devpi gives up a page when the whole time is over,
and then keeps its lock of the project until the answer comes, which it never does when the upstream hangs."""
CONNECT = 0.3
"""The part of it in which a connection must be made."""
WHOLE = 10.0
"""How many times as long a whole page may take: devpi stores it in the background, and serves what is known."""
_JSON = "application/vnd.pypi.simple.v1+json"
_PAGES = (_JSON, "application/vnd.pypi.simple.v1+html", "text/html")
"""Media types of pages (PEP 691), of which pip takes no others either."""


class Client(HTTPClient):
    """What devpi asks upstreams with: given to it as its ``http``, as its own tests do.

    ``offline`` tells whether nothing may be asked; ``may_get`` whether a host may be sent these credentials;
    ``may_push`` whether anything may be sent to an address.
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
        self.client = httpx.Client(**self._kept(), event_hooks={"request": [self._ask], "response": [self._note]})
        self._shared: httpx.AsyncClient | None = None

    def _kept(self) -> dict[str, Any]:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEPT_SECONDS
        )
        # A cookie of one mirror must not be sent for another one, whose credentials differ.
        cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        return {"headers": self.headers, "verify": self._ssl_context, "limits": limits, "cookies": cookies}

    def _async(self) -> httpx.AsyncClient:
        """One client for all pages; devpi's own makes one for each, and with it a connection. Runs in devpi's loop."""
        if self._shared is None:
            hooks: Any = {"request": [self._ask_async], "response": [self._note_async]}
            self._shared = httpx.AsyncClient(**self._kept(), event_hooks=hooks)
        return self._shared

    async def async_get(
        self,
        url: Any,
        *,
        allow_redirects: bool,
        timeout: float | None = None,
        extra_headers: dict[str, str] | None = None,
    ) -> tuple[Any, str | None]:
        """A page and its text; a ``FatalResponse`` when there is none."""
        address = getattr(url, "url", url)
        self._upstreams.ask(address)
        seconds = timeout or self.timeout or 30.0
        wait = httpx.Timeout(seconds, connect=CONNECT * seconds, read=FIRST_BYTE * seconds)
        for again in (True, False):
            try:
                async with asyncio.timeout(WHOLE * seconds):
                    response = await self._async().get(
                        address, follow_redirects=allow_redirects, headers=extra_headers, timeout=wait
                    )
            except TimeoutError:
                endless = httpx.ReadTimeout("it does not come to an end", request=httpx.Request("GET", address))
                return self._failed(address, endless), None
            except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                # A kept connection that the upstream closed at this very moment.
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
            threadlog.warn("%s is no page, but %r", address, kind)
            return FatalResponse(address, f"no page: {kind}"), None
        if kind == _JSON:  # devpi knows it by the bare word only, and finds no links in it otherwise
            response.headers["Content-Type"] = _JSON
        return response, response.text

    @staticmethod
    def load() -> None:
        """Have httpx import what it else imports while somebody waits for the first page. Takes a while."""

        async def begin() -> None:
            anyio.Event()  # the first of anything of it, in whatever loop

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
        """A whole answer; a ``FatalResponse`` when there is none."""
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
        """An answer whose body is still to come; a ``FatalResponse`` when there is none."""
        try:
            return super().stream(cstack, method, url, raise_on_error=True, **more)
        except self.Errors as error:
            fatal = self._failed(getattr(url, "url", url), error)
            if raise_on_error:
                raise
            return fatal

    def _failed(self, address: str, error: BaseException) -> FatalResponse:
        threadlog.warn("%s while getting %s: %s", type(error).__name__, address, error)
        if isinstance(error, httpx.TransportError) and not isinstance(error, Refused):
            self._upstreams.of(str(error.request.url)).failed(id(error.request))
        return FatalResponse(address, repr(error))

    def _ask(self, request: httpx.Request) -> None:
        if self._offline():
            raise Refused("this server is offline", request=request)
        if request.method != "GET":  # a release that is pushed somewhere else, with credentials of its own
            if not self._may_push(request.url):
                raise Refused("nothing is pushed to it from here", request=request)
            return
        authorization = request.headers.get("Authorization")
        if authorization is not None and not self._may_get(str(request.url), authorization):
            # devpi sends a mirror's credentials to whatever host a link of its page names.
            del request.headers["Authorization"]
        if not self._upstreams.of(str(request.url)).begin(id(request)):
            raise Refused("it failed a moment ago and is not asked yet", request=request)

    async def _ask_async(self, request: httpx.Request) -> None:
        self._ask(request)

    def _note(self, response: httpx.Response) -> None:
        if response.request.method != "GET":
            return
        upstream = self._answered(response)
        response.stream = _Watched(response.stream, upstream, id(response.request))

    async def _note_async(self, response: httpx.Response) -> None:
        upstream = self._answered(response)
        response.stream = _WatchedAsync(response.stream, upstream, id(response.request))

    def _answered(self, response: httpx.Response) -> Upstream:
        upstream = self._upstreams.of(str(response.request.url))
        upstream.answered(id(response.request), stay_away=_stay_away(response))
        return upstream


class Refused(httpx.TransportError):
    """What is told instead of asking an upstream that is known not to answer."""


def _stay_away(response: httpx.Response) -> float:
    if response.status_code not in (429, 503):
        return 0.0
    told = response.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else 0.0


class _Watched(httpx.SyncByteStream):
    def __init__(self, inner: Any, upstream: Upstream, request: int) -> None:
        self._inner, self._upstream, self._request = inner, upstream, request

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._inner:
            self._upstream.received(len(piece))
            yield piece

    def close(self) -> None:
        self._upstream.left(self._request)
        self._inner.close()


class _WatchedAsync(httpx.AsyncByteStream):
    def __init__(self, inner: Any, upstream: Upstream, request: int) -> None:
        self._inner, self._upstream, self._request = inner, upstream, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._upstream.received(len(piece))
            yield piece

    async def aclose(self) -> None:
        self._upstream.left(self._request)
        await self._inner.aclose()
