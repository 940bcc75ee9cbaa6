"""``GET /+deployer/names``: projects that several indexes have, and the index that serves each one.

No upstream is asked for its list of names: a mirror is known to have the projects that it has served before. The page
of each project is made as for any client, so the answer is what an installer gets. That may ask an upstream for each
name: one answer has few names, and ends in time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any

from devpi_server.normalized import normalize_name
from pyramid.httpexceptions import HTTPBadRequest, HTTPNotFound

from deployer.protocol import NamesAnswer, ProjectNames
from deployer.server.devpi.installed import inside, installed
from deployer.server.devpi.ordered import KNOWN, TYPE, Priority

LIMIT = 100
"""Projects in one answer."""


def names(request: Any) -> NamesAnswer:
    """The view. Parameters: ``index``, and any number of ``name``; without one, all projects that are there twice.

    ``after``: the last name of the answer before.
    """
    user, _, index = request.params.get("index", "").partition("/")
    if not user or not index:
        raise HTTPBadRequest("index=USER/NAME is needed")
    stage = request.registry["xom"].model.getstage(user, index)
    if stage is None:
        raise HTTPNotFound(f"there is no index {user}/{index}")
    stages = list(below(stage))
    holders: dict[str, list[str]] = {}
    for one in stages:
        for project in _known(one):
            holders.setdefault(str(normalize_name(project)), []).append(one.name)
    asked = [str(normalize_name(name)) for name in request.params.getall("name")]
    after = request.params.get("after", "")
    chosen = asked or sorted(name for name, where in holders.items() if len(where) > 1 and name > after)
    deadline = time.monotonic() + request.registry["xom"].config.request_timeout
    found: list[ProjectNames] = []
    for name in chosen[:LIMIT]:
        found.append(_holders(stage, stages, name, holders.get(name, [])))
        if time.monotonic() > deadline:
            break
    return {"index": stage.name, "projects": found, "left_out": len(chosen) - len(found)}


def below(stage: Any) -> Iterator[Any]:
    """The index and all that it inherits from, in the order of the profile.

    devpi's own walk puts mirrors last, in an order that depends on its version.
    """
    todo, seen = [stage], set()
    while todo:
        one = todo.pop(0)
        if one.name not in seen:
            seen.add(one.name)
            yield one
            found = (stage.model.getstage(base) for base in one.ixconfig.get("bases", ()))
            todo = [base for base in found if base is not None] + todo


def _known(stage: Any) -> Iterable[str]:
    if stage.ixconfig["type"] == installed().mirror:
        return {*inside().served(stage), *getattr(stage.xom, KNOWN)(stage.name)}
    found: Iterable[str] = stage.list_projects_perstage()
    return found


def _holders(stage: Any, below: list[Any], name: str, known_in: list[str]) -> ProjectNames:
    owners = (Priority.of(one).owner(name) for one in below if one.ixconfig["type"] == TYPE)
    try:
        links = stage.get_simplelinks(name)
    except stage.UpstreamError:
        links = ()
    served = sorted({inside().origin(link) for link in links})
    return {"name": name, "known_in": known_in, "owner": next(filter(None, owners), None), "served_by": served}
