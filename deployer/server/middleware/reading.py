"""The tween that decides who may read: above stored pages, files, our own web pages, and all views of devpi.

Every request is about one index, by the first two parts of its path or by a parameter; or about several, and then its
answer is filtered; or about none. What is none of these is open only to those who may read everything, so a view that
nobody thought of shows nothing. Who asks is devpi's to say, with all its plugins: the limits of a token hold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote

from devpi_server.log import threadlog
from devpi_server.view_auth import CredentialsIdentity, RootFactory
from pyramid.httpexceptions import HTTPException, HTTPServiceUnavailable
from pyramid.interfaces import IRequestExtensions, IRoutesMapper, ISecurityPolicy
from pyramid.request import apply_request_extensions

from deployer.protocol import (
    ACCEPT_ROUTE,
    ACTIVITY_ROUTE,
    AUDIENCE_ROUTE,
    BODY_ROUTE,
    CACHED_ROUTE,
    IDENTITY_ROUTE,
    INVENTORY_ROUTE,
    KEEP_ROUTE,
    LIVE_ROUTE,
    MEMBER_STATUS_ROUTE,
    MINT_ROUTE,
    MIRRORED_ROUTE,
    NAMES_ROUTE,
    OFFLINE_ROUTE,
    OIDC_ROUTE,
    OPEN_ROUTE,
    PRUNE_ROUTE,
    READY_ROUTE,
    REFRESH_ROUTE,
    RULES_ROUTE,
)
from deployer.server import cdn
from deployer.server.devpi.token_scope import within_scope
from deployer.server.guard.grants import Credential, Grants
from deployer.server.guard.readers import Readers, principals
from deployer.server.json_text import dumps, loads
from deployer.server.middleware.bodies import ORIGINAL
from deployer.server.middleware.requests import is_text
from deployer.server.middleware.responses import SharedResponse

Handler = Callable[[Any], Any]

INNER = "deployer.pass"
"""Key of a WSGI environment: set for an inner request; the outer one has passed."""
READING = "deployer.reading"
"""Key of the tween in Pyramid's registry, for views that show several indexes."""
_HIDDEN = "deployer.hidden"
REALM = ("WWW-Authenticate", 'Basic realm="pypi"')

BY_PARAMETER = frozenset({RULES_ROUTE, NAMES_ROUTE, MIRRORED_ROUTE})
"""Addresses whose parameter ``index`` names the index."""
BY_ORIGINAL = frozenset({"/+authcheck"})
"""Addresses about the request that the header ``X-Original-URI`` names."""
OF_NONE = frozenset(
    {
        *("/+api", "/+login", "/+status", "/+searchhelp"),
        *(LIVE_ROUTE, READY_ROUTE, BODY_ROUTE),
        # with the ID token of a job
        *(AUDIENCE_ROUTE, MINT_ROUTE, OIDC_ROUTE),
        # with root's proof
        *(ACCEPT_ROUTE, ACTIVITY_ROUTE, CACHED_ROUTE, INVENTORY_ROUTE, KEEP_ROUTE, OFFLINE_ROUTE, OPEN_ROUTE),
        *(MEMBER_STATUS_ROUTE, PRUNE_ROUTE, REFRESH_ROUTE),
        # filtered by their views
        IDENTITY_ROUTE,
    }
)
"""Addresses that show nothing of an index."""
BELOW = ("/+static", "/+web/")
"""What addresses of no index begin with: files of devpi-web, and our own pages, which filter what they show."""
OF_A_USER = frozenset({"+api", "+tokens", "+token-create"})
"""What follows a user's name in an address that shows nothing of an index."""


@dataclass(frozen=True)
class Subject:
    """What a request is about: these indexes; or a list of indexes, of which some are left out; or everything."""

    indexes: tuple[str, ...] = ()
    lists: bool = False
    everything: bool = False


NOTHING, LISTS, EVERYTHING = Subject(), Subject(lists=True), Subject(everything=True)


def subject(path: str, parameters: Collection[str] = (), original: str = "") -> Subject | None:
    """What a path is about; None for a path that is refused. ``parameters``: the values of ``index``. ``original``: the
    path in ``X-Original-URI``."""
    parts = [part for part in path.split("/") if part]
    if not {".", ".."}.isdisjoint(parts):  # no address of this server; a proxy may read it as another one
        return None
    if path in BY_PARAMETER:
        return Subject(tuple(parameters))
    if path in BY_ORIGINAL:
        # The answer is a status alone.
        about = None if original in BY_ORIGINAL else subject(original)
        return NOTHING if about == LISTS else about
    if path in OF_NONE or path.startswith(BELOW):
        return NOTHING
    match parts:
        case []:
            return LISTS
        case [user] if not user.startswith("+"):
            return LISTS
        case [user, index, *_] if not user.startswith("+") and not index.startswith("+"):
            return Subject((f"{user}/{index}",))
        case [user, what, *_] if not user.startswith("+") and what in OF_A_USER:
            return NOTHING
    return EVERYTHING


class Reading:
    """The tween. Every method may be called from any thread."""

    def __init__(
        self,
        xom: Any,
        readers: Callable[[], Readers],
        *,
        session: Callable[[Any], str | None],
        page: Callable[[Any], bool],
        login: str,
        grants: Grants,
    ) -> None:
        """``readers``: as configured now. ``session``: the value of ``X-Devpi-Auth`` of a browser that is logged in.
        ``page``: whether one of our own pages answers. ``login``: the address of the page to log in; empty without.
        ``grants``: of nginx."""
        self._xom, self._readers = xom, readers
        self._session, self._page, self._login, self._grants = session, page, login, grants
        self._by_headers = _is_by_headers(xom.config.hook)

    def tween(self, handler: Handler) -> Handler:
        """The function that Pyramid calls for each request; ``handler``: the next tween."""

        def handle(request: Any) -> Any:
            readers = self._readers()
            if not readers.protected or INNER in request.environ or not is_text(request):
                return handler(request)
            original = unquote(request.headers.get(ORIGINAL, "").partition("?")[0])
            about = subject(request.path_info, request.GET.getall("index"), original)
            if about is None:
                return SharedResponse.of_text(HTTPStatus.NOT_FOUND, "there is no such path").to_pyramid()
            try:
                return self._answer(request, handler, readers, about)
            except HTTPServiceUnavailable as error:  # too many wait for a hash
                return SharedResponse.of_text(error.code, str(error.detail)).to_pyramid(extra={"Retry-After": "1"})

        return handle

    def hidden(self, request: Any) -> frozenset[str]:
        """The indexes that the sender of a request may not read. Call it outside a write transaction."""
        known: frozenset[str] | None = request.environ.get(_HIDDEN)
        if known is None:
            readers = self._readers()
            if not readers.protected:
                return frozenset()
            known = readers.protected - self._readable(request, readers, readers.protected)[0]
            request.environ[_HIDDEN] = known
        return known

    def _answer(self, request: Any, handler: Handler, readers: Readers, about: Subject) -> Any:
        if about.lists:
            return handler(request) if self._page(request) else self._filtered(request, handler)
        wanted = readers.protected if about.everything else readers.protected.intersection(about.indexes)
        if not wanted:
            return handler(request)
        readable, user = self._known(request, readers, wanted) or self._readable(request, readers, wanted)
        if readable != wanted:
            return self._refused(request, user, min(wanted - readable), everything=about.everything)
        response = handler(request)
        # A cache between us and the reader must not answer others.
        response.headers["Cache-Control"] = cdn.for_readers(response.headers.get("Cache-Control", ""))
        return response

    def _refused(self, request: Any, user: str, index: str, *, everything: bool) -> Any:
        what = f"this view shows every index, and {index}" if everything else index
        if user:
            return SharedResponse.of_text(HTTPStatus.FORBIDDEN, f"{user} may not read {index}").to_pyramid()
        if _is_browsers(request):
            if self._login:
                there = f"{request.application_url}{self._login}?next={quote(request.path_info)}"
                return SharedResponse(HTTPStatus.SEE_OTHER, (("Location", there),), b"").to_pyramid()
            text = f"{what} can be read with a login only, and the pages of this server have none"
            return SharedResponse.of_text(HTTPStatus.FORBIDDEN, text).to_pyramid()
        text = f"{what} can be read with a user and its password or token only"
        return SharedResponse.of_text(HTTPStatus.UNAUTHORIZED, text).to_pyramid(extra=dict([REALM]))

    # Several indexes

    def _filtered(self, request: Any, handler: Handler) -> Any:
        """devpi's list of users, or one user, without the indexes that the sender may not read."""
        hidden = self.hidden(request)
        if not hidden:
            return handler(request)
        response = handler(request)
        if response.status_code >= HTTPStatus.BAD_REQUEST or not response.body:
            return response
        try:
            shown = loads(response.body)
        except ValueError:  # a page of devpi-web
            return self._refused(request, "", min(hidden), everything=True)
        response.body = dumps(_without(shown, hidden))
        return response

    # Who asks

    def _known(self, request: Any, readers: Readers, wanted: frozenset[str]) -> tuple[frozenset[str], str] | None:
        """The same for a request whose password was judged a moment ago, and found good."""
        header = request.headers.get("Authorization", "")
        credential = Credential.parse(header) if header and "X-Devpi-Auth" not in request.headers else None
        if credential is None or len(wanted) > 1:
            return None
        held = all(self._grants.holds(index, credential, readers.at) for index in wanted)
        return (wanted, credential.user) if held else None

    def _readable(self, request: Any, readers: Readers, wanted: Collection[str]) -> tuple[frozenset[str], str]:
        """Those of the ``wanted`` indexes that the sender of a request may read; and its user, empty for none.

        Raises HTTPServiceUnavailable.
        """
        headers = self._credentials(request)
        if headers is None:
            return frozenset(), ""
        readable, user, asked, identity = set(), "", None, None
        with self._xom.keyfs.read_transaction(allow_reuse=True):
            for index in sorted(wanted):
                stage = self._xom.model.getstage(index)
                if stage is None:
                    continue
                if asked is None or not isinstance(identity, CredentialsIdentity):
                    # Who has a token may be somebody for one index, and nobody for another one.
                    asked = _asked(request, headers, stage)
                    identity = _identity(asked)
                if identity is None:
                    continue
                user = identity.username
                asked.context = RootFactory(asked, context=stage)
                may = readers.may(principals(user, identity.groups), index)
                if may and within_scope(identity, index) and asked.has_permission("pkg_read", asked.context):
                    readable.add(index)
                    self._grant(asked, identity, index, readers.at)
                elif may and _is_upload(request):  # devpi asks for the right to upload
                    readable.add(index)
        return frozenset(readable), user

    def _grant(self, asked: Any, identity: Any, index: str, at: int) -> None:
        """Let nginx answer the next requests with the same password, if it is by the password that devpi knows the
        sender, and the password is good for all of the index."""
        credential = Credential.parse(asked.headers.get("Authorization", ""))
        if credential is None or "projects" in getattr(identity, "restrictions", ()):
            return
        policy = asked.registry.getUtility(ISecurityPolicy)
        known, _plugins = policy._get_credentials(asked)
        if known is not None and tuple(known) == (credential.user, credential.text):
            self._grants.give(index, credential, at)

    def _credentials(self, request: Any) -> Mapping[str, str] | None:
        """The headers to add to those of a request, so that devpi knows its sender; None where nothing says who it is.

        The session of our pages counts for reading, of which no other site can make use.
        """
        is_own = request.method in ("GET", "HEAD") or request.path_info.startswith("/+web/")
        if is_own and "X-Devpi-Auth" not in request.headers:
            session = self._session(request)
            if session is not None and "Authorization" not in request.headers:
                return {"X-Devpi-Auth": session}
        said = "X-Devpi-Auth" in request.headers or "Authorization" in request.headers
        return {} if said or not self._by_headers else None


def _is_by_headers(hook: Any) -> bool:
    """Whether all plugins that know the sender of a request look at the two headers with passwords alone."""
    known = [*hook.devpiserver_get_credentials.get_hookimpls(), *hook.devpiserver_get_identity.get_hookimpls()]
    ours = {"devpi_server", "devpi_tokens", "deployer"}
    return all(one.function.__module__.partition(".")[0] in ours for one in known)


def _is_upload(request: Any) -> bool:
    """Whether devpi takes this for an upload, for which a token needs no permission to read: an upload shows nothing.
    Without an action devpi takes it for a push, which reads."""
    if request.method != "POST" or request.content_type != "multipart/form-data":
        return False
    try:
        return ":action" in request.POST
    except ValueError:
        return False


def _is_browsers(request: Any) -> bool:
    accept = request.environ.get("HTTP_ACCEPT", "")
    return request.method == "GET" and "text/html" in accept and "Mozilla/" in (request.user_agent or "")


def _asked(request: Any, headers: Mapping[str, str], stage: Any) -> Any:
    """A request of the same sender for an index, as devpi's views have it: a token's limits are checked against it.

    The request itself must not be identified here: devpi would keep the answer, and verify no limit later.
    """
    asked = request.copy_get()
    asked.environ = {key: value for key, value in asked.environ.items() if key != "webob.adhoc_attrs"}
    asked.headers.update(headers)
    registry = asked.registry = request.registry
    asked.log = threadlog
    extensions = registry.queryUtility(IRequestExtensions)
    if extensions is not None:
        apply_request_extensions(asked, extensions=extensions)
    found = registry.queryUtility(IRoutesMapper)(asked)
    asked.matchdict, asked.matched_route = found["match"], found["route"]
    asked.context = RootFactory(asked, context=stage)
    return asked


def _identity(request: Any) -> Any:
    """Who sends a request, as devpi says; None for nobody, and for a token that is refused."""
    try:
        return request.identity
    except HTTPServiceUnavailable:
        raise
    except HTTPException as error:
        threadlog.info("%s", error.detail)
        return None


def _without(shown: Any, hidden: Collection[str]) -> Any:
    """devpi's JSON of users without ``hidden`` indexes."""
    result = shown.get("result") if isinstance(shown, dict) else None
    if not isinstance(result, dict):
        return shown
    users = {result["username"]: result} if "username" in result else result
    for name, user in users.items():
        if isinstance(user, dict) and isinstance(user.get("indexes"), dict):
            for index in [index for index in user["indexes"] if f"{name}/{index}" in hidden]:
                del user["indexes"][index]
    return shown
