"""Upload tokens (the plugin devpi-tokens), held to what they are for. Registered only where that plugin is installed.

What a token may do is decided there. Added here: the user name that upload programs send with any token, a push that
can't get around the token's index and project, and one derivation of a key at a time.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from devpi_tokens import server as tokens
from pluggy import HookimplMarker
from pyramid.authorization import Everyone

from deployer.server.refusal import unfit

if TYPE_CHECKING:
    from pyramid.request import Request

server_hookimpl = HookimplMarker("devpiserver")

ANYBODY = "__token__"
"""What `uv publish --token` and others send as the user of a token, which tells whose it is."""
_one = Lock()


def serialise() -> None:
    """Let one key be derived at a time: each takes 100 MiB for a moment, and the server lives within a limit.

    Raises Refusal when keys are derived in another way.
    """
    derive = getattr(tokens.TokenUtility, "_derive_key", None)
    if derive is None:
        raise unfit("derives the keys of upload tokens in another way")

    def one_at_a_time(utility: Any, key: str) -> Any:
        with _one:
            return derive(utility, key)

    tokens.TokenUtility._derive_key = one_at_a_time


@server_hookimpl(tryfirst=True)
def devpiserver_get_identity(request: Request, credentials: tuple[str, str] | None) -> Any:
    if credentials is not None and credentials[0] == ANYBODY:
        return tokens.devpiserver_get_identity(request, (None, credentials[1]))
    return None


@server_hookimpl
def devpiserver_auth_denials(request: Request, acl: Any, user: Any, stage: Any) -> set[tuple[str, str]] | None:
    """A token that is limited to indexes or projects can't push: there its limits are checked against the index that a
    push comes from, and against no project at all."""
    identity = request.identity
    if not isinstance(identity, tokens.TokenIdentity):
        return None
    limited = any(identity.restrictions.get(name) for name in ("indexes", "projects"))
    uploads = request.method == "POST" and ":action" in request.POST
    return {(Everyone, "upload")} if limited and not uploads else None
