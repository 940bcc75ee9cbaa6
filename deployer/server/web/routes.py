"""Which page a request of a browser asks for. Pure.

Pages have the addresses that devpi has for its JSON, and lists below ``/+web/``: no user's name begins with a plus.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PREFIX = "/+web/"
"""What every address begins with that is only ours. No client of the index asks for one, so ``Accept`` does not count
there."""
LOGIN = f"{PREFIX}login"
_OWN = {f"{PREFIX}search": "search", f"{PREFIX}packages": "packages", f"{PREFIX}activity": "activity"}
_MANAGED = {f"{PREFIX}{name}": name for name in ("login", "once", "manage")}
_SENT = {f"{PREFIX}{name}": name for name in ("login", "logout")}
_ACTION = re.compile(rf"{re.escape(PREFIX)}do/(?P<name>[a-z-]+)")
_ACCOUNT = re.compile(rf"{re.escape(PREFIX)}manage/(?P<user>[^/]+)")
_SEGMENT = r"[^+/][^/]*"
_PLACE = re.compile(
    rf"/(?P<user>{_SEGMENT})(?:/(?P<index>{_SEGMENT})(?:/(?P<project>{_SEGMENT})(?:/(?P<version>[^/]+))?)?)?/?"
)
_STATIC = re.compile(rf"{re.escape(PREFIX)}static/(?P<name>[a-z0-9-]+(?:\.[a-z0-9]+)+)")
_API_TYPES = ("application/json", "application/vnd.pypi.simple")


@dataclass(frozen=True)
class Route:
    """``view``: its name in :data:`deployer.server.web.views.VIEWS`; ``missing`` for an address of ours without a
    page. The other fields are parts of the address, empty where it has none."""

    view: str
    user: str = ""
    index: str = ""  # its last part
    project: str = ""
    version: str = ""
    name: str = ""  # of a static file

    @property
    def stage(self) -> str:
        """The index, ``user/index``."""
        return f"{self.user}/{self.index}"


def route(method: str, path: str, *, accept: str, installer: bool, manages: bool = False) -> Route | None:
    """The page at ``path``; None for a request that is devpi's. ``installer``: the client says that it is one.
    ``manages``: users may log in here."""
    if manages and path.startswith(PREFIX) and (managed := _managed(method, path)) is not None:
        return managed
    if method not in ("GET", "HEAD"):
        return None
    if path.startswith(PREFIX):
        if path in _OWN:
            return Route(_OWN[path])
        static = _STATIC.fullmatch(path)
        return Route("missing") if static is None else Route("static", name=static["name"])
    if installer or not wants_html(accept):
        return None
    if path == "/":
        return Route("home")
    found = _PLACE.fullmatch(path)
    if found is None:
        return None
    given = {key: value or "" for key, value in found.groupdict().items()}
    view = "project" if given["project"] else "index" if given["index"] else "user"
    return Route(view, **given)


def _managed(method: str, path: str) -> Route | None:
    """The page, or the form, of a logged-in user at ``path``."""
    if method == "POST":
        action = _ACTION.fullmatch(path)
        view = _SENT.get(path)
        return Route("do", name=action["name"]) if action else Route(view) if view else None
    account = _ACCOUNT.fullmatch(path)
    if method not in ("GET", "HEAD"):
        return None
    return Route("account", user=account["user"]) if account else Route(_MANAGED[path]) if path in _MANAGED else None


def wants_html(accept: str) -> bool:
    """Whether an ``Accept`` header is a browser's: it names HTML, and no type of an API."""
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    return "text/html" in kinds and not any(kind.startswith(_API_TYPES) for kind in kinds)
