"""HTTP with a program that may be devpi: bounded in time and in size, past all proxies, to this one address."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, NoReturn
from urllib.parse import urlsplit

import httpx

from deployer.devpi.answers import JsonObject, Reply, line, text
from deployer.devpi.transport import Deadline, DeadlineTransport
from deployer.errors import ConflictError, NotReadyError, ServerRefused

MAX_BODY = 1024 * 1024
"""Bytes of an answer that are read at most, where what is asked for is a few kilobytes."""
MAX_TOPOLOGY = 8 * MAX_BODY
"""Bytes of the list of all users and indexes that are read at most: enough for some twenty thousand."""
MAX_LIST = 64 * MAX_BODY
"""Bytes of a list of projects or of files that are read at most."""
SLOW = 120.0
"""Seconds for what may make the server ask an upstream."""
LONG = 3600.0
"""Seconds for what moves whole files."""


class NotDevpiError(NotReadyError):
    """Something answers that is not devpi, or not devpi alone: to ask again won't change that."""

    retryable = False


class Connection:
    """The program at ``url``; ``timeout``: seconds for one request as a whole, unless its method says otherwise.

    Methods raise NotReadyError when nothing answers (NotDevpiError when something else does), ServerRefused or
    ConflictError with the server's own words for a 4xx or 5xx.
    """

    def __init__(self, url: str, *, timeout: float, transport: httpx.BaseTransport | None = None) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.who = "nobody"
        """In whose name writes are sent, for the cure of a refusal."""
        self._deadline = Deadline()
        self._client = httpx.Client(
            base_url=self.url,
            transport=transport or DeadlineTransport(self._deadline, tls=urlsplit(url).scheme == "https"),
            trust_env=False,
            follow_redirects=False,
            # Without this header devpi-web answers errors, and some plugins even a login, with a page for people.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()

    # Asking

    def request(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        form: Mapping[str, str | list[str]] | None = None,
        files: Mapping[str, tuple[str, IO[bytes], str]] | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_BODY,
        timeout: float | None = None,
    ) -> Reply:
        """The whole answer. ``body`` is sent as JSON, ``form`` and ``files`` as a form; ``limit``: bytes at most."""
        within = self.timeout if timeout is None else timeout
        self._deadline.start(within)
        content = {"json": body} if form is None else {"data": dict(form), "files": files}
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
                hint="see what it is doing: deployer logs",
            ) from None
        except httpx.TransportError as error:
            raise NotReadyError(
                f"cannot talk to {self.url}: {line(str(error))}", hint="see whether it runs: deployer status"
            ) from None

    def pieces(self, url: str, *, what: str) -> Iterator[bytes]:
        """A file as it comes, however large; ``what`` it is, in messages. ``url`` is on this very server."""
        self._deadline.start(LONG)
        try:
            with self._client.stream("GET", url, headers={"Accept": "*/*"}, timeout=SLOW) as response:
                if response.status_code != 200:
                    self.accepted(self._read(response, MAX_BODY), f"give {what}")
                    self.not_devpi(f"HTTP {response.status_code} for a file")
                yield from response.iter_raw()
        except (httpx.TransportError, httpx.StreamError) as error:
            raise NotReadyError(
                f"{what} broke off: {line(str(error)) or type(error).__name__}", hint="try again; deployer logs"
            ) from None

    def _read(self, response: httpx.Response, limit: int) -> Reply:
        if 300 <= response.status_code < 400:
            self.not_devpi(f"a redirect to {line(response.headers.get('Location', 'nowhere'))}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            self.not_devpi("a compressed answer that was not asked for")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > limit:
                self.not_devpi(f"an answer of more than {limit} bytes")
            self._deadline.left(None, httpx.ReadTimeout)
        return Reply(status=response.status_code, body=bytes(body), reason=line(response.reason_phrase))

    # What the answer is

    def accepted(self, reply: Reply, doing: str) -> Reply:
        """``reply``, if the server has not refused to do what it was asked for."""
        if reply.status < 400:
            return reply
        message = text((reply.json() or {}).get("message")) or reply.reason or "no reason given"
        told = f"{self.url} refused to {doing}: {line(message)} (HTTP {reply.status})"
        if reply.status == 409:
            raise ConflictError(told, hint="it is there already: choose another name, version or index")
        raise ServerRefused(told, hint=self._cure(reply.status))

    def _cure(self, status: int) -> str:
        """What helps against an HTTP status."""
        match status:
            case 401 | 403:
                who = self.who
                return f"{who} may not, or nobody may as it stands: another user with --as, or see deployer index show"
            case 404:
                return "see what there is: deployer index list, deployer package list"
            case 502 | 503 | 504:
                return "an upstream of that index does not answer as it should: deployer doctor"
            case _:
                return "the server's log may say more: deployer logs"

    def object(self, reply: Reply) -> JsonObject:
        """The JSON object of an answer."""
        found = reply.json()
        if found is None:
            self.not_devpi(f"HTTP {reply.status} without a JSON object: {reply.start}")
        return found

    def result(self, reply: Reply, doing: str, *, kind: str) -> JsonObject:
        """What an answer of the type ``kind`` holds."""
        answer = self.object(self.accepted(reply, doing))
        result = answer.get("result")
        if answer.get("type") != kind or not isinstance(result, dict):
            self.not_devpi(f"no {kind} in the answer")
        return result

    def not_devpi(self, what: str) -> NoReturn:
        """Raise NotDevpiError, since there is ``what`` in an answer."""
        raise NotDevpiError(
            f"{self.url} answers, but not as devpi does: {what}",
            hint="another program may hold this port: choose another with --port",
        )
