"""The tween of a replica, above all others: it serves once it has all data, and says why it can't."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from deployer.protocol import (
    ACCEPT_ROUTE,
    IDENTITY_ROUTE,
    KEEP_ROUTE,
    LIVE_ROUTE,
    MEMBER_STATUS_ROUTE,
    OFFLINE_ROUTE,
    PRUNE_ROUTE,
    REFRESH_ROUTE,
)
from deployer.server.devpi.replication import unanswered
from deployer.server.members.following import Following
from deployer.server.middleware.reading import INNER
from deployer.server.middleware.responses import SharedResponse

Handler = Callable[[Any], Any]
AGAIN = "deployer.again"
"""Mark in the environment of a request that is answered a second time."""
_ALWAYS = frozenset({IDENTITY_ROUTE, LIVE_ROUTE, MEMBER_STATUS_ROUTE, "/+api", "/+status"})
_OF_THE_PRIMARY = frozenset({ACCEPT_ROUTE, KEEP_ROUTE, OFFLINE_ROUTE, PRUNE_ROUTE, REFRESH_ROUTE})
"""Orders that a replica can't carry out."""
_READS = ("GET", "HEAD", "OPTIONS")
_FILE = re.compile(r"/([^+/]+/[^+/]+)/(\+[ef]/.+)")
_BROKEN = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
FILE_SECONDS = 20.0
"""Seconds that a client waits for a file that is being replicated."""
_BODY = "deployer.body"
"""The body of a write as it came, in its request's environment."""


class Gate:
    """``seen``: the serial up to which commits are taken into account. ``is_mirror``: whether an index is a mirror."""

    def __init__(self, following: Following, seen: Callable[[], int], is_mirror: Callable[[str], bool]) -> None:
        self._following = following
        self._seen, self._is_mirror = seen, is_mirror

    @property
    def following(self) -> Following:
        return self._following

    def tween(self, handler: Handler) -> Handler:
        def handle(request: Any) -> Any:
            if request.environ.get(AGAIN) or request.environ.get(INNER):
                return handler(request)
            if not self._following.serves and request.path_info not in _ALWAYS:
                if self._following.diverged:
                    return later("this replica has other data than its primary, and has to be made anew", seconds=60)
                return later("this replica has not yet got all data of its primary", seconds=5)
            if request.method == "POST" and request.path_info in _OF_THE_PRIMARY:
                return SharedResponse.of_text(409, "this is a replica: ask its primary").to_pyramid()
            if request.method not in _READS:
                return self._written(request, handler)
            seen = self._seen()
            response = handler(request)
            return self._again(request, response) if self._should_again(request, response, seen) else response

        return handle

    @staticmethod
    def _written(request: Any, handler: Handler) -> Any:
        """The primary's answer to a write."""
        request.environ[_BODY] = request.environ["wsgi.input"]
        try:
            return handler(request)
        except unanswered():
            return later("the primary of this replica does not answer, and only it takes changes", seconds=5)

    @staticmethod
    def whole_body(handler: Handler) -> Handler:
        """The tween right above devpi's views: they pass on the body as it came, whoever has read it before."""

        def handle(request: Any) -> Any:
            body = request.environ.get(_BODY)
            if body is not None:
                body.seek(0)
                request.environ["wsgi.input"] = body
            return handler(request)

        return handle

    def _should_again(self, request: Any, response: Any, seen: int) -> bool:
        """Whether the answer may be another one by now."""
        file = _FILE.fullmatch(request.path_info)
        if file is not None and response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            index, path = file.groups()  # files of mirrors come from the primary
            return not self._is_mirror(index) and self._following.is_here(f"{index}/{path}", seconds=FILE_SECONDS)
        return response.status_code in _BROKEN and self._following.wait_for_primary(seen)

    @staticmethod
    def _again(request: Any, former: Any) -> Any:
        close = getattr(former.app_iter, "close", None)
        if close is not None:
            close()
        again = request.copy_get() if request.method == "GET" else request.copy()
        again.environ[AGAIN] = True
        return request.invoke_subrequest(again, use_tweens=True)


def later(text: str, *, seconds: int) -> Any:
    """503: the client should try again."""
    response = SharedResponse.of_text(503, text).to_pyramid()
    response.headers["Retry-After"] = str(seconds)
    return response
