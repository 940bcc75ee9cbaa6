"""Which projects more than one index below an index has, as far as this server knows, and who serves them.

Nothing is listed at any upstream: a mirror is known to have what it served before. Of each project the page is made as
for everybody, so what is told is what an installer gets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from devpi_server.normalized import normalize_name
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound

from deployer.server.devpi.installed import inside, installed
from deployer.server.devpi.ordered import TYPE, Priority

ROUTE = "/+deployer/names"
LIMIT = 1000
"""Projects that are looked at in one request."""


def names(request: Any) -> dict[str, Any]:
    """The view: ``index`` is looked at, and below it each ``name``; all that are there twice when none is given."""
    user, _, index = request.params.get("index", "").partition("/")
    if not user or not index:
        raise HTTPBadRequest("index=USER/NAME is needed")
    stage = request.registry["xom"].model.getstage(user, index)
    if stage is None:
        raise HTTPNotFound(f"there is no index {user}/{index}")
    below = list(_below(stage))
    holders: dict[str, list[str]] = {}
    for one in below:
        for project in _known(one):
            holders.setdefault(str(normalize_name(project)), []).append(one.name)
    asked = [str(normalize_name(name)) for name in request.params.getall("name")]
    chosen = asked or sorted(name for name, found in holders.items() if len(found) > 1)
    told = [_told(stage, below, name, holders.get(name, [])) for name in chosen[:LIMIT]]
    return {"index": stage.name, "projects": told, "left_out": max(0, len(chosen) - LIMIT)}


def _below(stage: Any) -> Iterator[Any]:
    """The index and all that it inherits from, in the order in which profiles name them: devpi's own walk puts mirrors
    last, in an order that depends on its version."""
    todo, seen = [stage], set()
    while todo:
        one = todo.pop(0)
        if one.name not in seen:
            seen.add(one.name)
            yield one
            found = (stage.model.getstage(base) for base in one.ixconfig.get("bases", ()))
            todo = [base for base in found if base is not None] + todo


def _known(stage: Any) -> Iterable[str]:
    is_mirror = stage.ixconfig["type"] == installed().mirror
    found: Iterable[str] = inside().served(stage) if is_mirror else stage.list_projects_perstage()
    return found


def _told(stage: Any, below: list[Any], name: str, holders: list[str]) -> dict[str, Any]:
    owners = (Priority.of(one).owner(name) for one in below if one.ixconfig["type"] == TYPE)
    try:
        links = stage.get_simplelinks(name)
    except stage.UpstreamError:
        links = ()
    served = sorted({inside().origin(link) for link in links})
    return {"name": name, "known_in": holders, "owner": next(filter(None, owners), None), "served_by": served}
