"""devpi's replication: who is a replica, how it shows that, and how far it is.

devpi's replica asks its primary for a mirror's page, and reads the links that the primary has stored. Here a primary
stores links of the files that it has, so a replica makes them of its page (:func:`install`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pyramid.httpexceptions import HTTPForbidden

from deployer.server.devpi.installed import inside

PAGE = "deployer_page"
"""Attribute of a replica's ``xom``: a function of a mirror and a project that returns the files of its page; None when
there is no such project. It raises Silent."""
NAMED = 10
"""Files that a list of errors names."""
_LINKS = "get_simplelinks_perstage"


class Silent(Exception):
    """Nobody knows whether a mirror has a project: the primary does not answer, or its upstream does not."""


def is_member(request: Any) -> bool:
    """Whether a request to a primary comes from a replica, by devpi's own proof: it knows the secret. A replica holds
    back what the rules of mirrors say itself."""
    if "HTTP_X_DEVPI_REPLICA_UUID" not in request.environ:
        return False
    from devpi_server.replica import devpiserver_get_identity

    if not request.registry["xom"].is_primary():
        return False
    try:
        return devpiserver_get_identity(request, None) is not None
    except HTTPForbidden:
        return False


def member_of(request: Any) -> str:
    """The uuid of the replica that sent a request."""
    return str(request.headers["X-Devpi-Replica-Uuid"])


def proof(xom: Any) -> dict[str, str]:
    """The headers with which this replica shows its primary who it is."""
    found: dict[str, str] = xom.replica_thread.http.get_extra_headers(None)
    return found


def unanswered() -> type[Exception]:
    """What devpi raises for a write when the primary does not answer."""
    from devpi_server.model import UpstreamError

    found: type[Exception] = UpstreamError
    return found


class Progress:
    """How far the replication of this replica is."""

    def __init__(self, xom: Any) -> None:
        self._thread = xom.replica_thread
        self._files = xom.replica_thread.shared_data

    @property
    def complete(self) -> bool:
        """Whether it has had all commits of the primary since this start, and has asked for all of their files."""
        if self._thread.replica_metadata_in_sync_at is None:
            return False
        if self._files.init_queue_finished_at is None:
            condition = self._files._replica_metadata_in_sync_cv
            with condition:  # devpi's thread may have begun to wait after the only notification
                condition.notify_all()
            return False
        return bool(self._files.queue.unfinished_tasks == 0)

    @property
    def missing(self) -> int:
        """How many files it is to fetch, as far as it knows."""
        return int(self._files.queue.unfinished_tasks) + int(self._files.error_queue.qsize())

    @property
    def has_files(self) -> bool:
        """Whether it has all files of the primary's commits, but those that are fetched on demand."""
        return self._files.init_queue_finished_at is not None and self.missing == 0

    @property
    def errors(self) -> list[str]:
        """Files that could not be fetched, and why; the first of them."""
        found = list(self._files.errors.errors.items())[:NAMED]
        return [f"{path}: {error.get('message') or 'not fetched'}" for path, error in found]

    @property
    def primary(self) -> str:
        """The uuid of the primary's data; empty while it is unknown."""
        return str(self._thread.xom.config.get_primary_uuid() or "")


def install() -> None:
    """Have a replica's mirrors list the files of the primary's page."""
    mirror = inside().MirrorStage
    stored = getattr(mirror, _LINKS)

    def get_simplelinks_perstage(self: Any, project: Any) -> Any:
        page: Callable[[str, str], Iterable[Mapping[str, Any]] | None] = getattr(self.xom, PAGE)
        if self.xom.config.offline_mode:
            return stored(self, project)
        try:
            files = page(self.name, str(project))
        except Silent as error:
            raise self.UpstreamError(str(error)) from None
        if files is None:
            raise self.UpstreamNotFoundError(f"project {project} not found")
        return inside().links(self, files)

    setattr(mirror, _LINKS, get_simplelinks_perstage)
