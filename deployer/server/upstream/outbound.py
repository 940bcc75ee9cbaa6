"""What a client may have this server ask of others, beyond the pages and files that declared mirrors give.

devpi sends a release to whatever address a reader names, with a password of the reader's choice, and tells him what
came back; and it asks every mirror below an index for a project again, whoever wants that and whoever owns the name.
Here a release goes only to origins that the operator named, sent by those who may upload to where it comes from, and
a project is asked for again by users of this server only, of the mirrors that may serve it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx
from devpi_server.views import PyPIView, apiresult
from pyramid.httpexceptions import HTTPFound

from deployer.server.devpi.installed import installed
from deployer.server.devpi.ordered import serving
from deployer.server.refusal import unfit

NAME = "deployer-outbound"
_PUSH, _REFRESH = "_push_external", "simple_refresh"
_PORTS = {"http": 80, "https": 443}
_PAGE = "/{user}/{index}/+simple/{project}/"


def origin(url: object) -> tuple[str, str, int | None] | None:
    """Scheme, host and port as the HTTP client itself reads them, so that nobody reads two things in one address."""
    try:
        parsed = httpx.URL(url)  # type: ignore[arg-type]
    except (httpx.InvalidURL, TypeError, ValueError):
        return None
    return parsed.scheme, parsed.host, parsed.port or _PORTS.get(parsed.scheme)


@dataclass(frozen=True)
class Outbound:
    """The origins that releases may be pushed to; registered as a plugin of devpi's, where its views find it."""

    origins: frozenset[tuple[str, str, int | None] | None] = frozenset()

    @classmethod
    def to(cls, urls: Iterable[str]) -> Outbound:
        return cls(frozenset(map(origin, urls)))

    def allows(self, url: object) -> bool:
        """Whether something may be sent to ``url``, which may be anything that a client came up with."""
        found = origin(url)
        return found is not None and found in self.origins


def allowed(config: Any) -> Outbound:
    """What this server may send to; nothing, unless it was told at its start. ``config``: devpi's."""
    return config.pluginmanager.get_plugin(NAME) or Outbound()


def install() -> None:
    """Have devpi's views ask first. Raises Refusal when they are made in another way."""
    push, refresh = getattr(PyPIView, _PUSH, None), getattr(PyPIView, _REFRESH, None)
    if not (callable(push) and callable(refresh)):
        raise unfit("pushes releases in another way than the one that is fenced in here")
    if push.__module__ == __name__:
        return

    def push_external(self: Any, name: str, version: str, links: Any, metadata: Any, pushdata: Any) -> Any:
        refusal = _refusal(self.request, self.context.stage.name, pushdata.get("posturl"))
        return refusal or push(self, name, version, links, metadata, pushdata)

    setattr(PyPIView, _PUSH, push_external)
    setattr(PyPIView, _REFRESH, simple_refresh)


def _refusal(request: Any, index: str, target: object) -> Any:
    if not request.has_permission("upload"):
        return apiresult(403, f"only who may upload to {index} may push from it to other servers: log in as one")
    if not allowed(request.registry["xom"].config).allows(target):
        return apiresult(
            403, "this server pushes nothing to that address: name its origin in server.push_to of the profile"
        )
    return None


def simple_refresh(self: Any) -> Any:
    """In the place of devpi's view: the known page stays until its upstream has given another."""
    request, context = self.request, self.context
    if request.authenticated_userid is None:
        return apiresult(403, "only users of this server may have an upstream asked again: log in as one")
    for stage in serving(context.stage, context.project):
        if stage.ixconfig["type"] == installed().mirror:
            stage.cache_retrieve_times.expire(context.project)
            try:
                stage.get_simplelinks_perstage(context.project)
            except stage.UpstreamError as error:
                return apiresult(502, f"{stage.name} has no page of {context.project}: {error}")
    names = {"user": context.username, "index": context.index, "project": context.project}
    return HTTPFound(location=request.route_url(_PAGE, **names))
