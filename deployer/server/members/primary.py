"""A replica's primary, as it is asked: for pages and files of mirrors, and for what it has."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
from devpi_server.httpclient import FatalResponse

from deployer.server.members.messages import MEMBER_ROUTE, PAGE_ROUTE, STORED, Report, Told
from deployer.server.upstream.body import LARGEST_LIST, InvalidBody
from deployer.server.upstream.client import Client, NoAnswer
from deployer.server.upstream.health import Upstreams

REPORT_SECONDS = 5.0
"""Seconds that the answer to a report may take."""


class Primary:
    """``url``: with a slash at the end. ``proof``: the headers that show who this replica is."""

    def __init__(
        self,
        url: str,
        upstreams: Upstreams,
        proof: Callable[[], Mapping[str, str]],
        *,
        timeout: float,
        has_room: Callable[[], bool],
    ) -> None:
        self.url = url
        self._proof = proof
        self._upstream = upstreams.of(url)
        # Not devpi's client: this replica asks its primary while it is offline, too.
        self._client = Client(
            upstreams,
            timeout=timeout,
            offline=lambda: False,
            may_get=lambda url, authorization: url.startswith(self.url),
            may_push=lambda url: str(url).startswith(self.url),
            largest_page=lambda url: LARGEST_LIST,
            has_room=has_room,
        )

    def report(self, report: Report) -> Told:
        """Report, and learn what the primary has. Raises NoAnswer."""
        try:
            answer = self._client.client.post(
                self.url + MEMBER_ROUTE.lstrip("/"),
                json=report.json,
                headers=self._proof(),
                timeout=REPORT_SECONDS,
            )
            if answer.status_code == httpx.codes.FORBIDDEN:
                raise NoAnswer("status 403: it has another secret, or is not a primary")
            if answer.status_code != httpx.codes.OK:
                raise NoAnswer(f"status {answer.status_code}")
            told = Told.parse(answer.content)
        except (*Client.Errors, ValueError) as error:
            raise NoAnswer(str(error)) from None
        self._upstream.answered(0)  # it is asked again for pages at once
        return told

    def page(self, mirror: str, project: str, *, tag: str, again: bool) -> httpx.Response:
        """The primary's page of a mirror. ``tag``: of the page that is known. ``again``: a client wants it anew.

        Raises NoAnswer.
        """
        headers = {**self._proof(), **({"If-None-Match": tag} if tag else {})}
        if again:
            headers["Cache-Control"] = "no-cache"
        return self._client.page(f"{self.url}{PAGE_ROUTE.lstrip('/')}{quote(mirror)}/{quote(project)}", headers=headers)

    def stored(self, mirror: str, project: str, *, tag: str) -> httpx.Response:
        """The primary's page of a mirror as it keeps it; nobody else is asked. Raises NoAnswer."""
        headers = {**self._proof(), "Cache-Control": STORED, **({"If-None-Match": tag} if tag else {})}
        return self._client.page(f"{self.url}{PAGE_ROUTE.lstrip('/')}{quote(mirror)}/{quote(project)}", headers=headers)

    def get(self, path: str, headers: Mapping[str, str]) -> httpx.Response:
        """A small answer at ``path``, of any status. Raises NoAnswer."""
        return self._client.page(self.url + quote(path), headers={**self._proof(), **headers})

    def stream(self, stack: contextlib.ExitStack, method: str, path: str, headers: Mapping[str, str]) -> Any:
        """An answer at ``path`` whose body is not read yet; None when the primary does not answer."""
        sent = {**self._proof(), "Accept-Encoding": "identity", **headers}
        try:
            found = self._client.stream(stack, method, self.url + quote(path), allow_redirects=True, extra_headers=sent)
        except InvalidBody:
            return None
        return None if isinstance(found, FatalResponse) else found
