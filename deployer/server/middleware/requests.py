"""Which project's page a request asks for, and in which format; decided before devpi sees the request."""

from __future__ import annotations

import contextlib
import re
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from devpi_server.normalized import normalize_name
from devpi_server.views import INSTALLER_USER_AGENT_REGEXP as INSTALLER
from devpi_server.views import SIMPLE_API_V1_JSON as JSON_TYPE
from webob.acceptparse import create_accept_header

from deployer.protocol import NAMES_ROUTE, parsed
from deployer.server.middleware.bodies import SMALL
from deployer.server.pages.store import Key

_PAGE = re.compile(r"/([^+/]+)/([^+/]+)/(?:\+simple/)?([^+/]+)/?")


@dataclass(frozen=True)
class PageRequest:
    """A request for a project's page.

    ``format``: None for the page of browsers. ``name``: the stored file that answers it, named after its format; None
    for none. ``up``: the way from the page to the server's root; None where the client wants
    absolute addresses.
    """

    user: str
    index: str
    project: str  # normalised
    format: Format | None
    name: str | None
    up: str | None

    @property
    def key(self) -> Key:
        return (self.user, self.index, self.project)

    @property
    def stage(self) -> str:
        return f"{self.user}/{self.index}"


@dataclass(frozen=True)
class Format:
    """How a page is written: ``json`` or ``html``, and the media type that says so."""

    kind: str
    content_type: str


_JSON = Format("json", JSON_TYPE)
HTML = Format("html", "text/html; charset=utf-8")
_HTML_V1 = Format("html", "application/vnd.pypi.simple.v1+html")
_OFFERS = {  # PEP 691; of types that a client wants equally the first counts, as in devpi
    "text/html": HTML,
    JSON_TYPE: _JSON,
    "application/vnd.pypi.simple.latest+json": _JSON,
    "application/vnd.pypi.simple.v1+html": _HTML_V1,
    "application/vnd.pypi.simple.latest+html": _HTML_V1,
}
_GZIP = re.compile(r"(?:^|,)\s*gzip\s*(?:$|,|;(?!\s*q=0(?:\.0*)?\s*(?:,|$)))", re.IGNORECASE)
_LIST = re.compile(r"/[^+/]+/[^+/]+/\+simple/?")
_INDEX = re.compile(r"/[^+/]+/[^+/]+/?(?:\+simple/?)?")


def negotiate(request: Any) -> Format | None:
    """The format that a client wants; None for the page of browsers. One that accepts none of them gets HTML."""
    chosen = _chosen(request.environ.get("HTTP_ACCEPT"))
    return chosen if chosen is not HTML or INSTALLER.match(request.user_agent or "") else None


@lru_cache(maxsize=64)
def _chosen(accepted: str | None) -> Format:
    """The format for an ``Accept`` header. Installers have few of them, and to read one takes as long as a page."""
    offers = create_accept_header(accepted).acceptable_offers(list(_OFFERS))
    return _OFFERS[offers[0][0]] if offers else HTML


def list_format(request: Any) -> Format | None:
    """The format of a list of names, where devpi would name no media type for it; None for anything else."""
    if not _LIST.fullmatch(request.path_info) or request.method not in ("GET", "HEAD"):
        return None
    offers = request.accept.acceptable_offers(list(_OFFERS))
    return None if offers and offers[0][0] in ("text/html", JSON_TYPE) else _OFFERS[offers[0][0]] if offers else HTML


def lists_names(request: Any) -> bool:
    """Whether a request is for the projects of an index."""
    return bool(_INDEX.fullmatch(request.path_info)) and "no_projects" not in request.query_string


def credentials(request: Any) -> dict[str, str]:
    """The headers that state who sends a request; for a login, those that state what its body does."""
    found = {name: request.headers[name] for name in ("Authorization", "X-Devpi-Auth") if name in request.headers}
    if request.path_info == "/+login" and request.method == "POST" and (request.content_length or 0) < SMALL:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            told = parsed(request.body)
            pair = f"{told['user']}:{told['password']}".encode()
            found = {"Authorization": f"Basic {b64encode(pair).decode()}"}
    return found


_INDEX = re.compile(r"/([^+/]+)/([^+/]+)(?:/(?:\+simple/)?(?:([^+/]+)(?:/.*)?)?)?")


def may_ask(request: Any) -> tuple[str, str | None] | None:
    """The index, and the project if it is about one alone, of which devpi may ask an upstream; None when it asks none.

    Every view below an index counts, whichever plugin it is of, except what is written by a user: an upload, and a
    change of the index itself.
    """
    if request.path_info == NAMES_ROUTE:
        return request.GET.get("index", ""), None
    found = _INDEX.fullmatch(request.path_info)
    if found is None or request.method in ("PUT", "PATCH", "DELETE") or _is_upload(request):
        return None
    user, index, project = found.groups()
    return f"{user}/{index}", None if project is None else str(normalize_name(project))


def _is_upload(request: Any) -> bool:
    """Whether devpi takes it for an upload, and not for a push."""
    try:
        return request.method == "POST" and bool(request.POST.get(":action"))
    except ValueError:  # an invalid form
        return False


def takes_gzip(request: Any) -> bool:
    """Whether the client takes a page that is packed. As for nginx, ``*`` does not count."""
    return _GZIP.search(request.headers.get("Accept-Encoding", "")) is not None


def is_text(request: Any) -> bool:
    """Whether path and query are UTF-8. devpi logs a traceback if they are not."""
    try:
        request.path_info.encode()
        unquote_to_bytes(request.query_string).decode()
    except UnicodeError:
        return False
    return True


def page_request(request: Any) -> PageRequest | None:
    """The request for a project's page; None for any other request."""
    path = request.path_info
    found = _PAGE.fullmatch(path)
    if found is None or request.method not in ("GET", "HEAD"):
        return None
    user, index, project = found.groups()
    is_simple = "/+simple/" in path
    normal = str(normalize_name(project))
    kind = None if "HTTP_X_DEVPI_REPLICA_UUID" in request.environ else negotiate(request)
    relative = "HTTP_X_DEVPI_ABSOLUTE_URLS" not in request.environ
    exact = is_simple and path.endswith("/") and project == normal and not request.query_string
    storable = exact and relative
    up = "../" * (path.count("/") - 1) if relative else None
    return PageRequest(user, index, normal, kind, kind.kind if kind and storable else None, up)
