"""Projects of ordered indexes that another base would serve now than at first; and their acceptance.

``POST /+deployer/accept`` forgets who served projects of an index first: whoever serves them now may. The proof in the
request shows that the client can read the server directory (:mod:`deployer.server.challenge`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from devpi_server.log import threadlog

from deployer.protocol import Accepted, AcceptRequest, TakenOver
from deployer.server.challenge import INVALID, Challenge
from deployer.server.devpi import offline_requests
from deployer.server.devpi.ordered import TYPE, note_owners, verdict
from deployer.server.guard.owners import Owners
from deployer.server.guard.rules import Held

RULE = "changed"


class Takeovers:
    """What is known of them. ``forget``: drops the stored pages of a project, None for all."""

    def __init__(self, xom: Any, owners: Owners, challenge: Challenge, forget: Callable[[str | None], None]) -> None:
        self._xom, self._owners, self._challenge, self._forget = xom, owners, challenge, forget

    def note(self, index: str, project: str, origins: Collection[str]) -> None:
        """Record who served a page of ``index`` with files of ``origins``. Call it outside a transaction."""
        with self._xom.keyfs.read_transaction():
            stages = self._stages(index)
            if any(stage.ixconfig["type"] == TYPE for stage in stages):
                note_owners(stages, project, origins)

    def held(self, index: str, project: str) -> tuple[str, Held] | None:
        """The ordered index, at or below ``index``, through which nobody serves the project, and why; None without.

        Call it outside a transaction.
        """
        with self._xom.keyfs.read_transaction():
            for name, (first, now) in verdict(self._stages(index), project).taken.items():
                return name, Held(RULE, f"{first} served it first, and {now} would serve it now")
        return None

    def ordered(self, index: str) -> list[str]:
        """The ordered indexes at or below ``index``, sorted. Call it in a transaction."""
        return sorted(stage.name for stage in self._stages(index) if stage.ixconfig["type"] == TYPE)

    def projects(self, index: str) -> list[str]:
        """The projects of an ordered index of which it is known who served them first."""
        return self._owners.projects(index)

    def of(self, index: str, project: str) -> TakenOver | None:
        """The takeover of a project, as far as is known without asking an upstream. Call it in a transaction."""
        with offline_requests.answering():
            found = verdict(self._stages(index), project).taken.get(index)
        return None if found is None else {"index": index, "project": project, "first": found[0], "now": found[1]}

    def _stages(self, index: str) -> list[Any]:
        stage = self._xom.model.getstage(index)
        return [] if stage is None else list(stage.sro())

    def accept(self, request: Any) -> Accepted | dict[str, str]:
        """The view of ``POST``."""
        wanted = _read(request)
        if wanted is None or not self._challenge.admit(wanted.order, wanted.proof):
            request.response.status = 403
            return {"message": INVALID}
        stage = self._xom.model.getstage(wanted.index)
        if stage is None or stage.ixconfig["type"] != TYPE:
            request.response.status = 404
            return {"message": f"there is no ordered index {wanted.index}"}
        known = self.projects(wanted.index)
        chosen = known if wanted.projects is None else [name for name in known if name in wanted.projects]
        found = [taken for taken in (self.of(wanted.index, name) for name in chosen) if taken is not None]
        self._owners.forget(wanted.index, chosen)
        for name in [None] if wanted.projects is None else chosen:
            self._forget(name)
        threadlog.info("%s: accepted who serves %s now", wanted.index, ", ".join(wanted.projects or ["all projects"]))
        return {"index": wanted.index, "accepted": found}


def _read(request: Any) -> AcceptRequest | None:
    try:
        return AcceptRequest.parse(request.json_body)
    except (ValueError, RecursionError):
        return None
