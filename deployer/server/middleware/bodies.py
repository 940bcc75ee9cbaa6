"""``GET /+deployer/body``: whether a body that is not small may be read, asked before it is.

A body is buffered on the disk before devpi sees the request. nginx asks here with the headers of the request alone
(``auth_request``); without nginx, :mod:`clients` does the same.
"""

from __future__ import annotations

from typing import Any

from pyramid.response import Response

SMALL = 10_000
"""Bytes of a body from which on its sender must be known."""
ORIGINAL = "X-Original-URI"
"""The header with the address of the request that has the body."""
_ANONYMOUS = ":ANONYMOUS:"


def admit(request: Any) -> Any:
    """The view: 204 for a user of this server, and where the index takes uploads of everybody; else 401."""
    admitted = request.authenticated_userid is not None or _is_open(request)
    return Response(status=204 if admitted else 401)


def _is_open(request: Any) -> bool:
    """Whether everybody may send what the request is about: a release, or a file's test results."""
    path: str = request.headers.get(ORIGINAL, "").partition("?")[0]
    user, index, kind = [*path.lstrip("/").split("/"), "", "", ""][:3]
    stage = request.registry["xom"].model.getstage(user, index) if user and index else None
    right = "acl_toxresult_upload" if kind == "+f" else "acl_upload"
    return bool(stage is not None and _ANONYMOUS in (stage.ixconfig.get(right) or ()))
