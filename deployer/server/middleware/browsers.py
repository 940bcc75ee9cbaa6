"""Headers of every answer: those that keep a browser from running what others uploaded, and those for caches. And
answers for requests that devpi-web fails on.

Everything here is served from one origin: an uploaded file that a browser takes for a page could act there in the
name of whoever is logged in at a proxy before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from devpi_server.log import threadlog

from deployer.server.middleware import caching
from deployer.server.middleware.reading import INNER
from deployer.server.middleware.responses import SharedResponse

Handler = Callable[[Any], Any]

LONGEST = 255
"""Bytes of one segment of a path; no file name, and so nothing that is stored, is longer."""
# From devpi-web's page around documentation: the one script that is written into a page.
_INLINE = "'sha256-%s'"
PAGES = (
    "default-src 'self'; script-src 'self'{inline}; style-src 'self' 'unsafe-inline'; img-src * data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""Content-Security-Policy of pages: no script in a page, no `javascript:` link; pictures of a README from anywhere."""
_FILE = re.compile(r"/[^+/]+/[^+/]+/\+[ef]/.+")
_PACKAGE = re.compile(r"\.(?:whl|zip|tar\.gz|tgz|tar\.bz2|tar|egg|exe|msi|deb|rpm|dmg)$")
_ACTIVE = re.compile(r"^(?:text/|image/svg)|html|xml|script", re.IGNORECASE)
_FRAGILE = frozenset({"search", "search_help", "toxresult", "toxresults"})
"""Routes of devpi-web that raise an error for a page or a file that does not exist."""


def tween_factory(handler: Handler, registry: Any) -> Handler:
    """The outermost tween."""
    policy = PAGES.format(inline=_inline(registry))

    def tween(request: Any) -> Any:
        if INNER in request.environ:
            return handler(request)
        if _is_impossible(_path(request)):
            response = SharedResponse.of_text(404, "there is no such name").to_pyramid()
            return caching.completed(request, _headers(request, response, policy))
        try:
            response = handler(request)
        except (LookupError, ValueError, StopIteration) as error:
            route = getattr(request, "matched_route", None)
            if route is None or route.name not in _FRAGILE or request.method not in ("GET", "HEAD"):
                raise
            threadlog.warn("devpi-web can't serve %r: %r", _path(request), error)
            response = SharedResponse.of_text(404, "there is no such page").to_pyramid()
        return caching.completed(request, _headers(request, response, policy))

    return tween


def _path(request: Any) -> str:
    """The path, one character for each byte: it need not be UTF-8."""
    return str(request.environ.get("PATH_INFO", ""))


def _is_impossible(path: str) -> bool:
    """Whether a path names something that no file system, and so no index, can hold."""
    return "\0" in path or any(len(segment) > LONGEST for segment in path.split("/"))


def _headers(request: Any, response: Any, policy: str) -> Any:
    headers = response.headers
    headers["X-Content-Type-Options"] = "nosniff"
    kind = headers.get("Content-Type", "")
    if _FILE.fullmatch(_path(request)) and response.status_code in (200, 206) and "json" not in kind:
        if _ACTIVE.search(kind) or not kind:
            headers["Content-Type"] = "application/octet-stream"
        if not _PACKAGE.search(_path(request)):
            headers["Content-Disposition"] = "attachment"
    if "html" in headers.get("Content-Type", "") and "Content-Security-Policy" not in headers:
        headers["Content-Security-Policy"] = policy
    return response


def _inline(registry: Any) -> str:
    """The hashes of the scripts in devpi-web's pages, as a source list; empty without devpi-web."""
    return "".join(f" {_INLINE % digest}" for digest in registry.get(SCRIPTS, ()))


SCRIPTS = "deployer.scripts"
"""Key of those hashes in Pyramid's registry."""
