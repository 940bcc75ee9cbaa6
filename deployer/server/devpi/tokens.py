"""Tokens (the plugin devpi-tokens) with tighter limits. Registered only where that plugin is installed.

devpi-tokens decides what a token may do. Added here: the user name ``__token__`` that upload programs send, a refusal
of pushes that would bypass a token's index or project, one key derivation at a time, and tokens that users make for
themselves also where only root changes users.
"""

from __future__ import annotations

import time
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from devpi_server.views import apireturn
from devpi_tokens import server as tokens
from devpi_tokens import views
from pluggy import HookimplMarker
from pyramid.authorization import Everyone
from pyramid.httpexceptions import HTTPForbidden

if TYPE_CHECKING:
    from pyramid.request import Request

server_hookimpl = HookimplMarker("devpiserver")

ANY_USER = "__token__"
"""User name that ``uv publish --token`` and others send with a token; the token itself names its user."""
MOST = 100
"""Valid tokens of one user."""
_lock = Lock()
_OWN = "user_modify_password"
"""devpi's permission that a user has on himself, also with ``--restrict-modify``; no token has it."""


def install() -> None:
    """Derive one key at a time, and each once: it takes 100 MiB for a moment, and the server has a memory limit.

    devpi-tokens keeps keys, too, but many first requests at the same time would derive the same one.
    """
    derive = lru_cache(maxsize=1000)(tokens.TokenUtility._derive_key)

    def derive_key(utility: Any, key: str) -> Any:
        with _lock:
            return derive(utility, key)

    tokens.TokenUtility._derive_key = derive_key


@server_hookimpl
def devpiserver_pyramid_configure(config: Any, pyramid_config: Any) -> None:
    """Let users make, list and revoke their own tokens: devpi-tokens wants a permission that only root has here."""
    for route, method, view in (
        ("user-token-create", "POST", create),
        ("user-token-delete", "DELETE", views.user_token_delete),
        ("user-tokens", "GET", views.user_tokens_info),
    ):
        pyramid_config.add_view(view, route_name=route, request_method=method, permission=_OWN)


def create(context: Any, request: Request) -> Any:
    """The view of devpi-tokens, which keeps tokens for ever and any number of them."""
    known = context.user.get(credentials=True).get("tokens", {})
    over = [name for name, info in known.items() if _expired(info, time.time())]
    if len(known) - len(over) >= MOST:
        apireturn(403, f"{context.user.name} has {MOST} tokens: revoke one first")
    if over:
        with context.user.key.update() as user:
            for name in over:
                del user["tokens"][name]
    return views.user_token_create(context, request)


def _expired(info: Any, now: float) -> bool:
    found = dict(str(one).partition("=")[::2] for one in info.get("restrictions", ()))
    expires = found.get("expires", "")
    return expires.isdecimal() and int(expires) <= now


@server_hookimpl(tryfirst=True)
def devpiserver_get_identity(request: Request, credentials: tuple[str, str] | None) -> Any:
    """Who holds a token. One that its holder has narrowed in a form that devpi-tokens can't list is refused: every
    question for its permissions would fail."""
    if credentials is not None and credentials[0] == ANY_USER:
        credentials = ("", credentials[1])
    found = tokens.devpiserver_get_identity(request, credentials)
    if found is not None and not _is_listed(found):
        raise HTTPForbidden("a limit of this token is unknown here")
    return found


def _is_listed(identity: Any) -> bool:
    try:
        return identity.restrictions is not None
    except (ValueError, KeyError):
        return False


@server_hookimpl
def devpiserver_auth_denials(request: Request, acl: Any, user: Any, stage: Any) -> set[tuple[str, str]] | None:
    """Refuse pushes with a token that is limited to indexes or projects.

    For a push, devpi-tokens compares these limits with the source index only, and with no project.
    """
    identity = request.identity
    if not isinstance(identity, tokens.TokenIdentity):
        return None
    limited = any(identity.restrictions.get(name) for name in ("indexes", "projects"))
    uploads = request.method == "POST" and ":action" in request.POST
    return {(Everyone, "upload")} if limited and not uploads else None
