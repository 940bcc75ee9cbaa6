"""HTTP to one address, without proxies and with limits of time and size; the server may not be devpi."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from http.client import HTTPException
from typing import IO, Any, NoReturn
from urllib.parse import urlsplit

import httpx

from deployer.devpi.answers import JsonObject, Reply, line, text
from deployer.devpi.transport import Blocks, Deadline, DeadlineTransport
from deployer.errors import ConflictError, NotReadyError, ServerRefused

MAX_BODY = 1024 * 1024
"""Largest answer in bytes where a few kilobytes are expected."""
MAX_TOPOLOGY = 8 * MAX_BODY
"""Largest list of all users and indexes in bytes: enough for some twenty thousand."""
MAX_LIST = 64 * MAX_BODY
"""Largest list of projects or files in bytes."""
SLOW = 120.0
"""Timeout in seconds of requests that may cause an upstream request."""
LONG = 3600.0
"""Timeout in seconds of transfers of whole files."""


class NotDevpiError(NotReadyError):
    """The server is not devpi; retrying does not help."""

    retryable = False


class Connection:
    """The server at ``url``; ``timeout``: seconds for one whole request, unless its method says otherwise.

    Methods raise NotReadyError when nothing answers (NotDevpiError when something else does), ServerRefused or
    ConflictError with the server's own message for a 4xx or 5xx.
    """

    def __init__(self, url: str, *, timeout: float, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.who = "nobody"
        """The logged-in user, for hints."""
        self.reader: Mapping[str, str] = {}
        """Headers of a user for what not everybody may read; sent where the server asks for one."""
        self._deadline = Deadline()
        self._blocks = Blocks(url)
        self._client = httpx.Client(
            base_url=self.url,
            transport=transport or DeadlineTransport(self._deadline, tls=urlsplit(url).scheme == "https"),
            trust_env=False,
            follow_redirects=False,
            # Without this header devpi-web answers errors, and some plugins even a login, with an HTML page.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()
        self._blocks.close()

    # Requests

    def request(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        form: Mapping[str, str | list[str]] | None = None,
        files: Mapping[str, tuple[str, IO[bytes], str]] | None = None,
        pieces: Iterable[bytes] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_BODY,
        timeout: float | None = None,
    ) -> Reply:
        """The whole answer. ``body`` is sent as JSON, ``form`` and ``files`` as a form, ``pieces`` as they are;
        ``limit``: bytes."""
        if method == "GET" and self.reader and (headers is None or self.reader.keys().isdisjoint(headers)):
            reply = self._once(method, path, params=params, headers=headers, limit=limit, timeout=timeout)
            if reply.status != 401:
                return reply
            headers = {**(headers or {}), **self.reader}
        return self._once(
            method, path, body, form, files, pieces, params=params, headers=headers, limit=limit, timeout=timeout
        )

    def _once(
        self,
        method: str,
        path: str,
        body: JsonObject | None = None,
        form: Mapping[str, str | list[str]] | None = None,
        files: Mapping[str, tuple[str, IO[bytes], str]] | None = None,
        pieces: Iterable[bytes] | None = None,
        *,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        limit: int,
        timeout: float | None,
    ) -> Reply:
        within = self.timeout if timeout is None else timeout
        self._deadline.start(within)
        content: dict[str, Any] = {"json": body} if form is None else {"data": dict(form), "files": files}
        content = content if pieces is None else {"content": pieces}
        try:
            with self._client.stream(
                method,
                path,
                params=params,
                headers=headers,
                timeout=within,
                **content,
            ) as response:
                return self._read(response, limit)
        except httpx.TimeoutException:
            raise NotReadyError(
                f"{self.url} did not answer {method} {path} within {within:g} s",
                hint="read the server's log: deployer logs",
            ) from None
        except httpx.TransportError as error:
            raise NotReadyError(
                f"cannot talk to {self.url}: {line(str(error))}", hint="check whether it runs: deployer status"
            ) from None

    def pieces(self, url: str, *, what: str) -> Iterator[bytes]:
        """Stream a file of any size; ``what``: its name in messages. ``url`` must be on this server."""
        self._deadline.start(LONG)
        try:
            for headers in self._readers():
                asked = {"Accept": "*/*", **headers}
                with self._client.stream("GET", url, headers=asked, timeout=SLOW) as response:
                    if response.status_code == 401 and not headers and self.reader:
                        continue
                    if response.status_code != 200:
                        self.accepted(self._read(response, MAX_BODY), f"give {what}")
                        self.not_devpi(f"HTTP {response.status_code} for a file")
                    yield from response.iter_raw()
                    return
        except (httpx.TransportError, httpx.StreamError) as error:
            raise NotReadyError(
                f"{what} broke off: {line(str(error)) or type(error).__name__}", hint="try again; deployer logs"
            ) from None

    def _readers(self) -> Iterator[Mapping[str, str]]:
        """The headers of a file's request: first nobody's."""
        yield {}
        if self.reader:
            yield self.reader

    def blocks(self, url: str, *, what: str) -> Iterator[bytes]:
        """As :meth:`pieces`, in large blocks."""
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        answer = self._blocks.get(target, timeout=SLOW)
        try:
            status = next(answer)
            if status == 401 and self.reader:
                self._blocks.close()
                answer = self._blocks.get(target, timeout=SLOW, headers=self.reader)
                status = next(answer)
            if status != 200:
                self._blocks.close()
                raise ServerRefused(
                    f"{self.url} refused to give {what} (HTTP {int(status)})", hint=self._cure(int(status))
                )
            yield from (block for block in answer if isinstance(block, bytes))
        except (OSError, HTTPException) as error:
            raise NotReadyError(
                f"{what} broke off: {line(str(error)) or type(error).__name__}", hint="try again; deployer logs"
            ) from None

    def _read(self, response: httpx.Response, limit: int) -> Reply:
        if 300 <= response.status_code < 400:
            self.not_devpi(f"a redirect to {line(response.headers.get('Location', 'nowhere'))}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            self.not_devpi("an unrequested compressed answer")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > limit:
                self.not_devpi(f"an answer of more than {limit} bytes")
            self._deadline.left(None, httpx.ReadTimeout)
        return Reply(status=response.status_code, body=bytes(body), reason=line(response.reason_phrase))

    # Answers

    def accepted(self, reply: Reply, doing: str) -> Reply:
        """Return ``reply`` unless the server refused the request."""
        if reply.status < 400:
            return reply
        message = text((reply.json() or {}).get("message")) or reply.reason or "no reason given"
        told = f"{self.url} refused to {doing}: {line(message)} (HTTP {reply.status})"
        if reply.status == 409:
            raise ConflictError(told, hint="it exists: choose another name, version or index")
        raise ServerRefused(told, hint=self._cure(reply.status))

    def _cure(self, status: int) -> str:
        """The hint for an HTTP status."""
        match status:
            case 401 | 403:
                who = self.who
                return f"{who} may not, or nobody may as it stands: another user with --as, or see deployer index show"
            case 404:
                return "list indexes and packages: deployer index list, deployer package list"
            case 413:
                return "remove old releases: deployer package remove; or raise quota of that index in the profile"
            case 502 | 503 | 504:
                return "check the upstreams of that index: deployer doctor"
            case _:
                return "read the server's log: deployer logs"

    def object(self, reply: Reply) -> JsonObject:
        """The JSON object of an answer."""
        found = reply.json()
        if found is None:
            self.not_devpi(f"HTTP {reply.status} without a JSON object: {reply.start}")
        return found

    def result(self, reply: Reply, doing: str, *, kind: str) -> JsonObject:
        """The result of an answer of the type ``kind``."""
        answer = self.object(self.accepted(reply, doing))
        result = answer.get("result")
        if answer.get("type") != kind or not isinstance(result, dict):
            self.not_devpi(f"no {kind} in the answer")
        return result

    def not_devpi(self, what: str) -> NoReturn:
        """Raise NotDevpiError because of ``what`` in an answer."""
        raise NotDevpiError(
            f"{self.url} is not a devpi: {what}",
            hint="another program may use this port: choose another with --port",
        )
