"""Answers browsers: the request as a visit, the page of its route, and the response with its headers."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pyramid.response import Response

from deployer import __version__
from deployer.server.devpi.installed import server_version
from deployer.server.web import session, words
from deployer.server.web.routes import PREFIX, Route
from deployer.server.web.session import Session

if TYPE_CHECKING:
    from deployer.server.web.tween import Web

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; font-src 'none'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing of another origin, and no script or style within a page."""
_HEADERS = (
    ("Content-Security-Policy", POLICY),
    # Without a referrer a browser says of its own form that it comes from nowhere (`Origin: null`).
    ("Referrer-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
)
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".svg": "image/svg+xml"}
_SMALL = 1000
"""Bytes below which a body is not packed."""
_DROPPED = ("Accept-Encoding", "Cache-Control", "If-None-Match", "If-Modified-Since", "If-Range", "Pragma", "Range")
_SAFE = "/+!@,=~'()$&*;:"


@dataclass(frozen=True)
class Fetched:
    """What the index answers to an inner request."""

    status: int
    body: bytes


class Visit:
    """One request of a browser.

    ``base``: the server's address as the browser has it, without a slash at the end. ``up``: the way from the page to
    the server's root, such as ``../../``. ``part``: htmx asks for a part of the page.
    """

    def __init__(self, request: Any) -> None:
        self.request = self._request = request
        self.base: str = request.application_url.rstrip("/")
        self.up: str = "../" * (request.path_info.count("/") - 1) or "./"
        self.part: bool = request.headers.get("HX-Request") == "true"
        self.session: Session | None = session.of(request)
        """Who the browser says is logged in; devpi verifies it whenever that matters."""

    def get(self, name: str, *, longest: int = 200) -> str:
        """A parameter of the query, as one line; empty without it."""
        text = str(self._request.GET.get(name, ""))[:longest]
        return "".join(character for character in text if character.isprintable()).strip()

    def number(self, name: str, *, most: int) -> int:
        """A parameter as a number between 0 and ``most``."""
        text = self.get(name, longest=9)
        return min(int(text), most) if text.isascii() and text.isdecimal() else 0

    def fetch(self, path: str, *, accept: str) -> Fetched:
        """What the index answers at ``path``, in the name of whoever asks."""
        asked = self._request.copy_get()
        asked.method, asked.path_info, asked.query_string = "GET", path, ""
        for name in _DROPPED:
            asked.headers.pop(name, None)
        asked.headers["Accept"] = accept
        asked.environ.pop("wsgi.file_wrapper", None)
        if self.session is not None:
            asked.headers["X-Devpi-Auth"] = self.session.auth
        answer = self._request.invoke_subrequest(asked, use_tweens=True)
        return Fetched(answer.status_code, answer.body)  # which also closes a file


@dataclass(frozen=True)
class Shown:
    """A page. ``template``: its file; with ``block``, htmx gets this part of it alone."""

    template: str
    model: Mapping[str, Any] = field(default_factory=dict)
    status: int = HTTPStatus.OK
    block: str = ""
    headers: Sequence[tuple[str, str]] = ()


def answer(web: Web, request: Any, route: Route, *, packed: bool) -> Any:
    """The response to a browser. ``packed``: it takes gzip."""
    if route.view == "static":
        return _static(route.name, request, packed=packed)
    from deployer.server.web import views

    visit, shown = views.show(web, request, route)
    headers = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("Vary", "Accept, HX-Request, Cookie"),
        *shown.headers,
    ]
    body = _rendered(web, visit, shown).encode(errors="replace")
    if shown.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", "1"))
    return _response(shown.status, body, headers, packed=packed)


def _rendered(web: Web, visit: Visit, shown: Shown) -> str:
    if not shown.template:
        return ""
    template = environment().get_template(shown.template)
    model = {
        "up": visit.up,
        "base": visit.base,
        "offline": web.offline(),
        "server": server_version(),
        "own_version": __version__,
        "query": visit.get("q"),
        "session": visit.session,
        "manages": web.manages,
        **shown.model,
    }
    if shown.block and visit.part:
        return "".join(template.blocks[shown.block](template.new_context(model)))
    return template.render(model)


def _response(status: int, body: bytes, headers: list[tuple[str, str]], *, packed: bool) -> Any:
    headers = [*headers, *_HEADERS]
    if packed and len(body) > _SMALL:
        body = gzip.compress(body, 6, mtime=0)
        headers.append(("Content-Encoding", "gzip"))
    headers = [(name, f"{value}, Accept-Encoding" if name == "Vary" else value) for name, value in headers]
    return Response(status=status, headerlist=headers, body=body)


# Files


@dataclass(frozen=True)
class StaticFile:
    """A file that is shipped with this program."""

    body: bytes
    kind: str
    tag: str


@cache
def static_file(name: str) -> StaticFile | None:
    """The shipped file of this name; None for another name."""
    path = HERE / "static" / name
    if path.suffix not in _KINDS or name not in {entry.name for entry in (HERE / "static").iterdir()}:
        return None
    body = path.read_bytes()
    return StaticFile(body, _KINDS[path.suffix], hashlib.sha256(body).hexdigest()[:16])


@cache
def _packed(name: str) -> bytes:
    found = static_file(name)
    return b"" if found is None else gzip.compress(found.body, 9, mtime=0)


def _static(name: str, request: Any, *, packed: bool) -> Any:
    found = static_file(name)
    if found is None:
        return Response(status=HTTPStatus.NOT_FOUND, text="there is no such file\n", content_type="text/plain")
    # The address has a digest of the content (`asset`): another content has another address.
    lasting = request.GET.get("v") == found.tag
    headers = [
        ("Content-Type", found.kind),
        ("Cache-Control", "public, max-age=31536000, immutable" if lasting else "no-cache"),
        ("Vary", "Accept-Encoding"),
        *_HEADERS,
    ]
    body = found.body
    if packed:
        body = _packed(name)
        headers.append(("Content-Encoding", "gzip"))
    return Response(status=HTTPStatus.OK, headerlist=headers, body=body)


def asset(name: str) -> str:
    """The address of a shipped file below the server's root."""
    found = static_file(name)
    if found is None:
        raise LookupError(name)
    return f"{PREFIX[1:]}static/{name}?v={found.tag}"


# Templates


@cache
def environment() -> Environment:
    """The templates: every value is escaped, and a name that is not defined is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"size": words.size, "number": words.number, "path": path}
    made.globals |= {"asset": asset, "share": words.share, "plural": words.plural}
    return made


def path(text: str) -> str:
    """A path of this server as part of an address."""
    return quote(text.encode(errors="replace"), safe=_SAFE)
