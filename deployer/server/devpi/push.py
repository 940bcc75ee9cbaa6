"""Limits on requests that a client can make this server send to other servers.

devpi pushes a release to any address that a reader names, with a password of the reader's choice, and reports the
answer; and it refetches a project from every mirror below an index, for any reader, whoever owns the name. Here a
release is pushed only to origins that the operator named, by users who may upload to the source index. A project is
refetched for users of this server only, from the mirrors that may serve it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
from devpi_server.views import PyPIView, apiresult
from pyramid.httpexceptions import HTTPFound

from deployer.server.devpi.installed import installed
from deployer.server.devpi.ordered import EXPIRE, serving

NAME = "deployer-push"
_PUSH, _REFRESH = "_push_external", "simple_refresh"
_PORTS = {"http": 80, "https": 443}
_PAGE = "/{user}/{index}/+simple/{project}/"


def origin(url: object) -> tuple[str, str, int | None] | None:
    """Scheme, host and port, parsed by the HTTP client that sends the request, so that both read the same address."""
    try:
        parsed = httpx.URL(url)  # type: ignore[arg-type]
    except (httpx.InvalidURL, TypeError, ValueError):
        return None
    return parsed.scheme, parsed.host, parsed.port or _PORTS.get(parsed.scheme)


@dataclass(frozen=True)
class PushTargets:
    """Origins that releases may be pushed to. Registered as a devpi plugin, so that views can find it."""

    origins: frozenset[tuple[str, str, int | None] | None] = frozenset()

    @classmethod
    def of(cls, urls: Iterable[str]) -> PushTargets:
        return cls(frozenset(map(origin, urls)))

    def allows(self, url: object) -> bool:
        """Whether a push to ``url`` is allowed; a client may have sent any value."""
        found = origin(url)
        return found is not None and found in self.origins


def allowed(config: Any) -> PushTargets:
    """The push targets of this server; none unless they were given at the start. ``config``: devpi's."""
    return config.pluginmanager.get_plugin(NAME) or PushTargets()


def install() -> None:
    """Replace devpi's views for pushing a release and for refetching a project."""
    push = getattr(PyPIView, _PUSH)

    def push_external(self: Any, name: str, version: str, links: Any, metadata: Any, pushdata: Any) -> Any:
        refusal = _refusal(self.request, self.context.stage.name, pushdata.get("posturl"))
        return refusal or push(self, name, version, links, metadata, pushdata)

    setattr(PyPIView, _PUSH, push_external)
    setattr(PyPIView, _REFRESH, simple_refresh)


def _refusal(request: Any, index: str, target: object) -> Any:
    if not request.has_permission("upload"):
        return apiresult(403, f"a push from {index} needs the right to upload to {index}: log in as a user who has it")
    if not allowed(request.registry["xom"].config).allows(target):
        return apiresult(403, "pushing to that address is not allowed: add its origin to server.push_to of the profile")
    return None


def simple_refresh(self: Any) -> Any:
    """Replace devpi's view: the known page stays until the upstream has sent another one."""
    request, context = self.request, self.context
    if request.authenticated_userid is None:
        return apiresult(403, "a refresh from the upstream needs a user of this server: log in")
    for stage in serving(context.stage, context.project):
        if stage.ixconfig["type"] == installed().mirror:
            stage.cache_retrieve_times.expire(context.project)
            getattr(stage.xom, EXPIRE)(stage.name, context.project)
            try:
                stage.get_simplelinks_perstage(context.project)
            except stage.UpstreamError as error:
                return apiresult(502, f"{stage.name} has no page of {context.project}: {error}")
    names = {"user": context.username, "index": context.index, "project": context.project}
    return HTTPFound(location=request.route_url(_PAGE, **names))
