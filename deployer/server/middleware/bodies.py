"""``GET /+deployer/body``: whether a body that is not small may be read, asked before it is.

A body is buffered on the disk before devpi sees the request. nginx asks here with the headers of the request alone
(``auth_request``); without nginx, :mod:`clients` does the same.
"""

from __future__ import annotations

from typing import Any

from pyramid.response import Response

from deployer.server.devpi import quotas

SMALL = 10_000
"""Bytes of a body from which on its sender must be known."""
ORIGINAL = "X-Original-URI"
"""The header with the address of the request that has the body."""
LENGTH = "X-Original-Length"
"""The header with the length of that body."""
REFUSAL = "X-Deployer-Refusal"
"""The header of an answer 403 with the reason why the body is too large for its index."""
_ANONYMOUS = ":ANONYMOUS:"


def admit(request: Any) -> Any:
    """The view: 204 for a user of this server, and where the index takes uploads of everybody; else 401, and 403 for an
    upload that its index has no room for."""
    path: str = request.headers.get(ORIGINAL, "").partition("?")[0]
    user, index, kind = [*path.lstrip("/").split("/"), "", "", ""][:3]
    xom = request.registry["xom"]
    stage = xom.model.getstage(user, index) if user and index else None
    sender = request.authenticated_userid
    if sender is None and not _is_open(stage, kind):
        return Response(status=401)
    length = request.headers.get(LENGTH, "")
    # Who may not upload learns nothing of the index.
    if stage is not None and length.isdecimal() and _may_upload(stage, sender):
        why = quotas.given(xom.config).early(stage, int(length))
        if why:
            return Response(status=403, headers={REFUSAL: why})
    return Response(status=204)


def _may_upload(stage: Any, sender: str | None) -> bool:
    """Whether the index names the sender, or everybody; what it says of groups counts later."""
    return not {sender, _ANONYMOUS}.isdisjoint(stage.ixconfig.get("acl_upload") or ())


def _is_open(stage: Any, kind: str) -> bool:
    """Whether everybody may send what the request is about: a release, or a file's test results."""
    right = "acl_toxresult_upload" if kind == "+f" else "acl_upload"
    return bool(stage is not None and _ANONYMOUS in (stage.ixconfig.get(right) or ()))
