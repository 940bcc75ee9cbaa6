"""``POST /+deployer/refresh``: ask the upstream of a mirror anew, whatever is stored.

The proof in the request shows that the client can read the server directory (:mod:`deployer.server.challenge`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from pyramid.response import Response

from deployer.protocol import RefreshRequest
from deployer.server.challenge import INVALID, Challenge


class Source(Protocol):
    """What asks upstreams (:mod:`deployer.server.mirrors.source`)."""

    def refresh(self, index: str, projects: tuple[str, ...] | None) -> Mapping[str, str]:
        """Ask the upstream of the mirror ``index`` for the pages of ``projects``, None for all that are known here.

        Return one of ``Outcome`` for each, and for one of them at least another one than ``LEFT``. Raises LookupError
        when ``index`` is no mirror.
        """


class Refreshing:
    """The view. ``offline``: whether upstreams must not be asked."""

    def __init__(self, source: Source, challenge: Challenge, *, offline: Callable[[], bool]) -> None:
        self._source = source
        self._challenge = challenge
        self._offline = offline

    def view(self, request: Any) -> Any:
        """The view of ``POST``."""
        wanted = _read(request)
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            return _message(403, INVALID)
        if self._offline():
            return _message(400, "this server is offline: upstreams are not asked")
        try:
            found = self._source.refresh(wanted.index, wanted.projects)
        except LookupError:
            return _message(404, f"there is no mirror {wanted.index}")
        return Response(json_body={"index": wanted.index, "projects": dict(found)})


def _message(status: int, text: str) -> Any:
    return Response(json_body={"message": text}, status=status)


def _read(request: Any) -> RefreshRequest | None:
    try:
        return RefreshRequest.parse(request.json_body)
    except (ValueError, RecursionError):
        return None
