"""The pages on which a logged-in user changes things, and the requests that their forms send.

A form becomes one request of the index's own API in the user's name (:mod:`orders`), so rights and checks are those of
every other client, and the change is in the log of changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deployer.distribution import Misnamed, NotADistribution, upload_form
from deployer.protocol import Pruned
from deployer.server.json_text import loads
from deployer.server.secret_files import Private
from deployer.server.web import drift, orders, session, words
from deployer.server.web.form import FormVisit as Visit
from deployer.server.web.orders import MANAGE, Invalid, Order
from deployer.server.web.routes import LOGIN, Route
from deployer.server.web.session import Session
from deployer.server.web.site import Fetched, Shown

if TYPE_CHECKING:
    from deployer.server.web.tween import Web

_JSON = "application/json"
_LISTED = 50
"""Projects of a preview."""


def login(web: Web, visit: Visit, route: Route) -> Shown:
    """``/+web/login``: the form, and what it sends."""
    wanted = visit.get("next") or visit.field("next")
    target = wanted if wanted.startswith("/") and not wanted.startswith("//") and "\\" not in wanted else "/"
    if visit.method != "POST":
        return Shown("manage/login.html", {"next": target, "error": ""})
    if not session.is_own(visit.request, None, ""):
        return _foreign()
    user, password = visit.field("user"), visit.secret("password")
    answer = visit.send("POST", "/+login", {"user": user, "password": password})
    if answer.status == HTTPStatus.OK:
        return _begun(visit, user, answer, target)
    busy = answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    error = (
        "No login can be verified at the moment: try again."
        if busy
        else "This user and this password don't belong together."
    )
    return Shown("manage/login.html", {"next": target, "error": error}, answer.status)


def _begun(visit: Visit, user: str, answer: Fetched, target: str) -> Shown:
    begun = Session(user, str(loads(answer.body)["result"]["password"]))
    return _to(visit, target, session.set_cookie(visit.request, begun))


def once(web: Web, visit: Visit, route: Route) -> Shown:
    """``/+web/once``: the login as root that ``deployer open`` has prepared, valid once and for a minute."""
    password = web.once.take(visit.get("code", longest=100)) if web.once else ""
    answer = visit.send("POST", "/+login", {"user": "root", "password": password}) if password else None
    if answer is None or answer.status != HTTPStatus.OK:
        error = "This address was used already, or is older than a minute. Run deployer open again, or log in here."
        return Shown("manage/login.html", {"next": MANAGE, "error": error}, HTTPStatus.FORBIDDEN)
    return _begun(visit, "root", answer, MANAGE)


def logout(web: Web, visit: Visit, route: Route) -> Shown:
    """``POST /+web/logout``: the browser forgets the token, which expires by itself."""
    if not session.is_own(visit.request, visit.session, visit.field(session.FORM_WORD)):
        return _foreign()
    return _to(visit, "/", session.set_cookie(visit.request, None))


def overview(web: Web, visit: Visit, route: Route) -> Shown:
    """``/+web/manage``: users, indexes, and the state of the server."""
    if visit.session is None:
        return _login_first(visit, MANAGE)
    users = _users(visit)
    if users is None:
        return _login_first(visit, MANAGE)
    private = Private.of(web.serverdir)
    model = {
        "users": users,
        "indexes": list(visit.catalog.indexes.values()),
        "is_root": visit.who == "root",
        "cache_bytes": web.pruner.cache_bytes,
        "drift": drift.drift(web.xom, private.declared),
        "backup": drift.last_backup(private.backup),
    }
    return Shown("manage/overview.html", {**model, **_said(visit)})


def account(web: Web, visit: Visit, route: Route) -> Shown:
    """``/+web/manage/USER``: profile, password and tokens of a user."""
    here = f"{MANAGE}/{quote(route.user)}"
    users = _users(visit) if visit.session is not None else None
    if users is None:
        return _login_first(visit, here)
    one = next((user for user in users if user["username"] == route.user), None)
    if one is None:
        return Shown("missing.html", {"text": f"There is no user {route.user}.", "indexes": []}, HTTPStatus.NOT_FOUND)
    return Shown("manage/account.html", _account(visit, one))


def _account(visit: Visit, user: Mapping[str, Any], token: str = "") -> Mapping[str, Any]:
    name = user["username"]
    answer = visit.fetch(f"/{quote(name)}/+tokens", accept=_JSON)
    tokens = loads(answer.body).get("result", {}).get("tokens", {}) if answer.status == HTTPStatus.OK else None
    own = visit.session is not None and visit.session.user in (name, "root")
    return {
        "user": user,
        "own": own,
        "is_root": visit.who == "root",  # the server runs with --restrict-modify root
        "tokens": None if tokens is None else _tokens(tokens),
        "token": token,
        "indexes": list(visit.catalog.indexes.values()),
        **_said(visit),
    }


def _tokens(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """The restrictions of each token, as words: devpi-tokens lists them as ``key=value``."""
    rows = []
    for name, token in sorted(found.items()):
        limits = dict(str(one).partition("=")[::2] for one in token.get("restrictions", ()))
        expires = limits.get("expires", "")
        until = time.strftime("%Y-%m-%d", time.gmtime(int(expires))) if expires.isdecimal() else ""
        shown = {key: limits.get(key, "") for key in ("allowed", "indexes", "projects")}
        rows.append({"id": name, "until": until, **shown})
    return rows


def act(web: Web, visit: Visit, route: Route) -> Shown:
    """``POST /+web/do/ACTION``: what a form asks for."""
    if visit.session is None:
        return _login_first(visit, "/")
    if not session.is_own(visit.request, visit.session, visit.field(session.FORM_WORD)):
        return _foreign()
    own: Mapping[str, Callable[[Web, Visit], Shown]] = {
        "offline": _offline,
        "create-token": _create_token,
        "upload": _upload,
        "preview-prune": _preview_prune,
        "prune": _prune,
    }
    if route.name in own:
        return own[route.name](web, visit)
    make = orders.ACTIONS.get(route.name)
    if make is None:
        return Shown("missing.html", {"text": "There is no such action.", "indexes": []}, HTTPStatus.NOT_FOUND)
    try:
        order = make(visit.fields, visit.catalog)
    except Invalid as invalid:
        return _refused(visit, str(invalid), HTTPStatus.BAD_REQUEST)
    return _sent(visit, order)


def _sent(visit: Visit, order: Order) -> Shown:
    if order.first is not None:
        answer = visit.send(order.first.method, order.first.path, order.first.body)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            return _refused(visit, _reason(answer), answer.status)
    answer = visit.send(order.method, order.path, order.body)
    if answer.status < HTTPStatus.BAD_REQUEST:
        return _to(visit, f"{order.back}?done={quote(order.done)}")
    return _refused(visit, _reason(answer), answer.status)


def _reason(answer: Fetched) -> str:
    """Why the API refused, in its own words where it has any."""
    try:
        message = str(loads(answer.body).get("message", ""))[:500]
    except (ValueError, AttributeError):
        message = ""
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and (not message or "ermission" in message):
        return "You may not do this, or your login has expired: log in again, or ask who owns it."
    return message or f"The server refused this (HTTP {answer.status})."


def _create_token(web: Web, visit: Visit) -> Shown:
    try:
        order = orders.create_token(visit.fields, visit.catalog, now=time.time())
    except Invalid as invalid:
        return _refused(visit, str(invalid), HTTPStatus.BAD_REQUEST)
    answer = visit.send(order.method, order.path, order.body)
    if answer.status >= HTTPStatus.BAD_REQUEST:
        return _refused(visit, _reason(answer), answer.status)
    user = next((one for one in _users(visit) or () if one["username"] == visit.field("user")), {"username": ""})
    # It is shown this once, and is in no address.
    return Shown("manage/account.html", _account(visit, user, token=loads(answer.body)["result"]["token"]))


def _offline(web: Web, visit: Visit) -> Shown:
    """Only root may, and who that is, devpi says."""
    wanted = visit.field("offline") == "on"
    if visit.who != "root":
        return _refused(visit, "Only root may switch the server offline.", HTTPStatus.FORBIDDEN)
    web.switch(wanted)
    state = "offline: it asks no upstream" if wanted else "online"
    return _to(visit, f"{MANAGE}?done={quote(f'The server is {state}.')}")


def _preview_prune(web: Web, visit: Visit) -> Shown:
    """What a prune would remove, largest first, with the form that does it."""
    found = _pruned(web, visit, dry=True)
    if isinstance(found, Shown):
        return found
    by_size = sorted(found["projects"].items(), key=lambda item: (-item[1], item[0]))
    model = {
        "files": sum(total["number"] for total in found["removed"].values()),
        "bytes": sum(total["bytes"] for total in found["removed"].values()),
        "linked": found["linked_bytes"],
        "projects": by_size[:_LISTED],
        "more": max(len(by_size) - _LISTED, 0),
        "days": visit.field("days"),
        "keep": visit.field("keep"),
    }
    return Shown("manage/prune.html", model)


def _prune(web: Web, visit: Visit) -> Shown:
    found = _pruned(web, visit, dry=False)
    if isinstance(found, Shown):
        return found
    freed = sum(total["bytes"] for total in found["removed"].values())
    more = " More is left: repeat it." if found["left"] else ""
    done = (
        f"Removed {sum(total['number'] for total in found['removed'].values())} files and pages, {words.size(freed)}."
    )
    return _to(visit, f"{MANAGE}?done={quote(done + more)}")


def _pruned(web: Web, visit: Visit, *, dry: bool) -> Pruned | Shown:
    """Only root may; without upstreams, nothing is removed that could not be had again."""
    if visit.who != "root":
        return _refused(visit, "Only root may prune the cache.", HTTPStatus.FORBIDDEN)
    if web.offline() and not dry:
        why = "This server is offline: what is removed could not be fetched again."
        return _refused(visit, why, HTTPStatus.BAD_REQUEST)
    try:
        return web.pruner.run(orders.prune(visit.fields, now=time.time(), dry=dry))
    except Invalid as invalid:
        return _refused(visit, str(invalid), HTTPStatus.BAD_REQUEST)


def _upload(web: Web, visit: Visit) -> Shown:
    """Each file of the form is one upload; the first that is refused ends it."""
    target = visit.field("index")
    if visit.catalog.of(target) is None:
        return _refused(visit, f"There is no index {target}.", HTTPStatus.NOT_FOUND)
    names: list[str] = []
    for file in visit.files("content"):
        try:
            form = upload_form(file.filename, file.file)
        except NotADistribution:
            why = f"{file.filename} is neither a wheel nor a source distribution."
            return _refused(visit, _partly(names, why), HTTPStatus.BAD_REQUEST)
        except Misnamed as other:
            why = f"{file.filename} holds {other}, which has another file name: build it again."
            return _refused(visit, _partly(names, why), HTTPStatus.BAD_REQUEST)
        answer = visit.upload(f"/{quote(target)}/", form, file.filename, file.file)
        if answer.status >= HTTPStatus.BAD_REQUEST:
            return _refused(visit, _partly(names, f"{file.filename}: {_reason(answer)}"), answer.status)
        names.append(file.filename)
    if not names:
        return _refused(visit, "Choose a wheel or a source distribution.", HTTPStatus.BAD_REQUEST)
    done = f"Uploaded {', '.join(names)}."
    return _to(visit, f"/{quote(target)}?done={quote(done[:500])}")


def _partly(names: list[str], why: str) -> str:
    return f"{why} Uploaded before it: {', '.join(names)}." if names else why


def _users(visit: Visit) -> list[Mapping[str, Any]] | None:
    """All users; None when the session is not valid any more."""
    if visit.who is None:
        return None
    answer = visit.fetch("/", accept=_JSON)
    found = loads(answer.body).get("result", {}) if answer.status == HTTPStatus.OK else {}
    return [{"email": "", "title": "", **user, "username": name} for name, user in sorted(found.items())]


def _said(visit: Visit) -> Mapping[str, str]:
    """What the last form did, for the page after it; text only, and escaped as all text is."""
    return {"done": visit.get("done", longest=500)}


def _to(visit: Visit, target: str, *headers: tuple[str, str]) -> Shown:
    where = f"{visit.base}{target}"
    if visit.scripted:  # the form's script goes there, and can't see a redirect
        return Shown("", status=HTTPStatus.OK, headers=(("X-Location", where), *headers))
    return Shown("", status=HTTPStatus.SEE_OTHER, headers=(("Location", where), *headers))


def _login_first(visit: Visit, target: str) -> Shown:
    return _to(visit, f"{LOGIN}?next={quote(target)}")


def _refused(visit: Visit, why: str, status: int) -> Shown:
    return Shown("manage/refused.html", {"why": why, "back": visit.request.referer or ""}, status)


def _foreign() -> Shown:
    why = "This form was not sent by a page of this server, or its page is too old. Open the page again."
    return Shown("manage/refused.html", {"why": why, "back": ""}, HTTPStatus.FORBIDDEN)


VIEWS: Mapping[str, Callable[[Web, Visit, Route], Shown]] = {
    "login": login,
    "once": once,
    "logout": logout,
    "manage": overview,
    "account": account,
    "do": act,
}
