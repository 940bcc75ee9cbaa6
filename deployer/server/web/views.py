"""The pages, one function each: what a template is given. A new page is an entry in :data:`VIEWS`, a route and a
template."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from devpi_server.normalized import normalize_name
from devpi_server.views import SIMPLE_API_V1_JSON as JSON_TYPE

from deployer.server.devpi import ordered
from deployer.server.json_text import loads
from deployer.server.mirrors.render import METADATA
from deployer.server.web import activity, catalog, commands, metadata, readme, releases, stock
from deployer.server.web.catalog import Catalog, Index
from deployer.server.web.routes import Route
from deployer.server.web.site import Shown, Visit

if TYPE_CHECKING:
    from deployer.server.web.tween import Web

View = Callable[["Web", Visit, Route], Shown]

RESULTS = 50
"""Projects in one answer of a search, and on one page of a list."""
TOP = 8
"""Projects in a list of the first ones."""


def _catalog(web: Web, request: Any) -> Catalog:
    return catalog.visible(web, web.hidden(request))


def home(web: Web, visit: Visit, route: Route) -> Shown:
    """``/``: what this is, how to use it, what it has."""
    known = _catalog(web, visit.request)
    preferred = known.preferred
    by_name = {one.name: one for one in known.projects()}
    stored, size = stock.totals(web.inventory)
    model = {
        "catalog": known,
        "hides": bool(web.hidden(visit.request)),
        "preferred": preferred,
        "snippets": commands.for_index(visit.base, preferred.name) if preferred else (),
        "counts": _counts(web),
        "stored": stored,
        "bytes": size,
        "any": bool(by_name),
        "used": [(by_name[one.project], one) for one in stock.most_used(web.inventory, TOP) if one.project in by_name],
        "largest": [(by_name[one.project], one) for one in stock.largest(web.inventory, TOP) if one.project in by_name],
        "through": known.through,
    }
    return Shown("home.html", model)


def _counts(web: Web) -> Mapping[str, Any]:
    """The sums of what was counted since the first start."""
    counted = web.activity.now(0)["counted"]
    indexes = counted["indexes"].values()
    hits, misses = sum(one["hits"] for one in indexes), sum(one["misses"] for one in indexes)
    return {
        "requests": sum(one["requests"] for one in indexes),
        "hits": hits,
        "asked": hits + misses,
        "saved": sum(one["bytes_saved"] for one in indexes),
        "since": counted["since"][:10],
    }


def search(web: Web, visit: Visit, route: Route) -> Shown:
    """``/+web/search``: projects that are here, by a part of their name."""
    known = _catalog(web, visit.request)
    text = visit.get("q")
    name = str(normalize_name(text)) if text else ""
    within = _known_index(known, visit.get("index"))
    found = known.search(name, within) if name else known.projects(within)
    target = within or (known.preferred.name if known.preferred else "")
    model = {
        **_listed(web, found, visit),
        "text": text,
        "index": within,
        "through": (lambda _found: within) if within else known.through,
        # The upstream is asked for this one name, and only when somebody follows the link.
        "elsewhere": f"{target}/{name}" if name and target and _is_name(name) else "",
        "exact": any(one.name == name for one in found[:1]),
        "mirrors": any(one.is_mirror for one in known.indexes.values()),
    }
    return Shown("search.html", model, block="results")


def _listed(web: Web, found: Sequence[catalog.Found], visit: Visit) -> Mapping[str, Any]:
    offset = visit.number("from", most=10**6)
    shown = found[offset : offset + RESULTS]
    stocks = stock.of(web.inventory, [one.name for one in shown])
    rows = [(one, stocks.get(one.name)) for one in shown]
    return {"found": rows, "total": len(found), "offset": offset, "step": RESULTS}


def _is_name(name: str) -> bool:
    """Whether a project may have this normalised name."""
    return len(name) <= 100 and name.replace("-", "").isalnum() and name.isascii()


def _known_index(known: Catalog, name: str) -> str:
    return name if name in known.indexes else ""


def user(web: Web, visit: Visit, route: Route) -> Shown:
    """``/user``: its indexes."""
    known = _catalog(web, visit.request)
    indexes = [index for index in known.indexes.values() if index.name.startswith(f"{route.user}/")]
    if not indexes:
        return _missing(f"There is no user {route.user} with an index.", known)
    return Shown("user.html", {"user": route.user, "indexes": indexes})


def index(web: Web, visit: Visit, route: Route) -> Shown:
    """``/user/index``: how it is used, what it reads, and what it has here."""
    known = _catalog(web, visit.request)
    one = known.of(route.stage)
    if one is None:
        return _missing(f"There is no index {route.stage}.", known)
    model = {
        **_listed(web, known.projects(one.name), visit),
        "index": one,
        "reads": [known.indexes[name] for name in one.reads],
        "snippets": commands.for_index(visit.base, one.name),
        "through": lambda _found: one.name,
        "indexes": list(known.indexes.values()),
        "done": visit.get("done", longest=500),
    }
    return Shown("index.html", model)


def project(web: Web, visit: Visit, route: Route) -> Shown:
    """``/user/index/project[/version]``: what installers get of a project, and how."""
    known = _catalog(web, visit.request)
    one = known.of(route.stage)
    name = str(normalize_name(route.project))
    if one is None:
        return _missing(f"There is no index {route.stage}.", known)
    page = f"/{one.name}/+simple/{name}/"
    fetched = visit.fetch(page, accept=JSON_TYPE) if _is_name(name) else None
    if fetched is None or fetched.status == HTTPStatus.NOT_FOUND or (fetched.status >= 500 and web.offline()):
        return _no_project(known, one, name, web)
    if fetched.status == HTTPStatus.FORBIDDEN:
        return _refused(one, name, fetched.body)
    if fetched.status != HTTPStatus.OK:
        return _no_answer(one, name)
    found = releases.project(
        name,
        loads(fetched.body),
        page=page,
        version=route.version,
        is_here=lambda path: (web.serverdir / "+files" / path).is_file(),
    )
    if route.version and found.selected is None:
        return _missing(f"{one.name} has no version {route.version} of {name}.", known)
    if not found.releases and not found.held:
        return _no_project(known, one, name, web)
    return Shown("project.html", _project_model(web, visit, one, found))


def _project_model(web: Web, visit: Visit, one: Index, found: releases.Project) -> Mapping[str, Any]:
    best = releases.best_for_metadata(found.files)
    answer = visit.fetch(f"/{best.path}{METADATA}", accept="*/*") if best else None
    has = answer is not None and answer.status == HTTPStatus.OK
    told = metadata.parse(answer.body) if answer is not None and has else metadata.Metadata()
    version = found.selected.version if found.selected else ""
    offset = visit.number("from", most=10**6)
    shown = "" if version in ("", releases.UNKNOWN) or version == found.latest else version
    return {
        "index": one,
        "project": found,
        "version": version,
        "meta": told,
        "silent": best is not None and not has,
        "readme": readme.html(told.description, told.content_type),
        "snippets": commands.for_release(visit.base, one.name, found.name, shown) if found.releases else (),
        "offset": offset,
        "step": releases.VERSIONS,
        "owner": _owner(web, one, found.name),
        "uses": stock.files(web.inventory, found.name),
        "done": visit.get("done", longest=500),
    }


def _owner(web: Web, one: Index, name: str) -> Mapping[str, str]:
    """The base that owns the name, by index, of each ordered index on the way; nobody is asked."""
    owners: dict[str, str] = {}
    with web.xom.keyfs.read_transaction():
        for below in one.reads:
            stage = web.xom.model.getstage(below)
            if stage is not None and stage.ixconfig["type"] == ordered.TYPE:
                owner = ordered.Priority.of(stage).owner(name)
                if owner is not None:
                    owners[below] = owner
    return owners


def _no_project(known: Catalog, one: Index, name: str, web: Web) -> Shown:
    asked = [known.indexes[below].upstream for below in one.reads if known.indexes[below].is_mirror]
    model = {"index": one, "name": name, "asked": asked, "like": known.like(name, one.name), "offline": web.offline()}
    return Shown("no_project.html", model, HTTPStatus.NOT_FOUND)


def _refused(one: Index, name: str, body: bytes) -> Shown:
    """A project that another base of an ordered index would serve than at first."""
    line = body.decode(errors="replace").strip()
    model = {"index": one, "name": name, "line": line if line.startswith(f"{name} is held back ") else ""}
    return Shown("refused.html", model, HTTPStatus.FORBIDDEN)


def _no_answer(one: Index, name: str) -> Shown:
    return Shown("no_answer.html", {"index": one, "name": name}, HTTPStatus.SERVICE_UNAVAILABLE)


def _missing(text: str, known: Catalog) -> Shown:
    model = {"text": text, "indexes": list(known.indexes.values())}
    return Shown("missing.html", model, HTTPStatus.NOT_FOUND)


def missing(web: Web, visit: Visit, route: Route) -> Shown:
    return _missing("There is no such page.", _catalog(web, visit.request))


def show(web: Web, request: Any, route: Route) -> tuple[Visit, Shown]:
    """The visit, and the page of its route."""
    from deployer.server.web import form, manage

    if route.view in manage.VIEWS:
        visit = form.FormVisit(request, _catalog(web, request))
        return visit, manage.VIEWS[route.view](web, visit, route)
    reading = Visit(request)
    return reading, VIEWS[route.view](web, reading, route)


VIEWS: Mapping[str, View] = {
    "home": home,
    "search": search,
    "packages": search,
    "user": user,
    "index": index,
    "project": project,
    "activity": activity.activity,
    "missing": missing,
}
