"""What devpi gets when it asks for a mirror's page itself: for its web pages, for a push, for versions of a project.

It gets what clients get, and the upstream is not asked twice. Only what devpi stores is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
from devpi_server.httpclient import FatalResponse

from deployer.server.devpi.installed import inside
from deployer.server.json_text import dumps
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.page import JSON_TYPE, is_archive, storable
from deployer.server.mirrors.source import Source
from deployer.server.upstream.client import NoAnswer


def page_of(indexes: Indexes, source: Source, url: str) -> Callable[[], Any] | None:
    """A function that answers devpi's request for ``url``; None when it is no page of a mirror."""
    found = indexes.page_of(url)
    return None if found is None else lambda: _answer(source, *found, url)


def _answer(source: Source, mirror: Mirror, project: str, url: str) -> Any:
    try:
        answer = source.get(mirror, project)
    except NoAnswer as error:
        return FatalResponse(url, str(error))
    page = answer.read()
    request = httpx.Request("GET", url)
    if page is None:
        return httpx.Response(404, request=request)
    files = [storable(file) for file in page.each() if is_archive(file["filename"])]
    body = dumps({"meta": {"api-version": "1.0"}, "name": project, "files": files})
    return httpx.Response(200, headers={"Content-Type": JSON_TYPE}, content=body, request=request)


def expire(xom: Any, mirror: str, project: str) -> None:
    """Have devpi ask again for a page of which it may have stored links."""
    times = xom.setdefault_singleton(mirror, "project_retrieve_times", factory=inside().ProjectUpdateCache)
    times.expire(project)
