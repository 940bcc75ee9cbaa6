"""Say with every answer what caches may keep, and answer those who have it already.

An answer that says nothing may be kept for as long as a cache guesses: a 404 for two minutes after an upload. So what
has no ``Cache-Control`` of its own gets one here.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pyramid.response import Response

from deployer.protocol import OFFLINE_HEADER
from deployer.server.cdn import NO_CACHE, NO_STORE
from deployer.server.pages.tags import tag

_CONTENT = (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT, HTTPStatus.NOT_MODIFIED)
_PARTICULAR = ("X-Devpi-Absolute-Urls", OFFLINE_HEADER)
"""Headers of requests that get another page than others; no ``Vary`` has them."""


def completed(request: Any, response: Any) -> Any:
    """The response with ``Cache-Control`` and an ETag; or 304, when the client has just that."""
    headers, status = response.headers, response.status_code
    lasts = "immutable" in headers.get("Cache-Control", "")
    is_particular = not lasts and any(name in request.headers for name in _PARTICULAR)
    if status not in _CONTENT or is_particular:
        headers["Cache-Control"] = NO_STORE
    elif "Cache-Control" not in headers:
        headers["Cache-Control"] = NO_CACHE if "ETag" in headers or "Last-Modified" in headers else NO_STORE
    if lasts or headers["Cache-Control"] == NO_STORE:
        return response
    if status != HTTPStatus.OK or request.method not in ("GET", "HEAD"):
        return response
    if "ETag" not in headers and isinstance(response.app_iter, list):
        body = b"".join(response.app_iter)
        if len(body) != response.content_length:  # the head of a file
            return response
        headers["ETag"] = f'"{tag(body)}"'
    if "ETag" in headers and request.headers.get("If-None-Match") and response.etag in request.if_none_match:
        kept = [pair for pair in response.headerlist if not pair[0].lower().startswith("content-")]
        return Response(status=HTTPStatus.NOT_MODIFIED, headerlist=kept)
    return response
