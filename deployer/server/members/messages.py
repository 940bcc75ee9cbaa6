"""What a replica and its primary send each other, besides devpi's own replication."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deployer.protocol import parsed
from deployer.server.members.pages import Written

MEMBER_ROUTE = "/+deployer/member"
"""Of a primary: a replica reports what it has, and learns what the primary has."""
PAGE_ROUTE = "/+deployer/page/"
"""Of a primary, with mirror and project: its own page of a mirror, with the addresses at the upstream."""
STORED = "only-if-cached"
"""``Cache-Control`` of a replica that copies a page: no upstream is asked (RFC 9111, 5.2.1.7)."""
AGE_HEADER, CURRENT_HEADER = "X-Deployer-Age", "X-Deployer-Current"
"""Of a page: seconds since the upstream was asked for it; ``no`` when the upstream did not answer the last time."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a replica has. ``serial``: up to which it has all commits, and the files that they uploaded. ``state``: the
    last :class:`State` that it has taken. ``synced``: whether it serves. ``owners``: the name
    of the list of first owners that it has taken last. ``noted``: records that it has made since: index, project,
    owner. ``pages``: the mark up to which it has all pages of mirrors; None when it wants none now."""

    serial: int
    state: str
    synced: bool
    owners: str = ""
    noted: tuple[tuple[str, str, str], ...] = ()
    pages: str | None = None

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: bytes) -> Report:
        """Raises ValueError."""
        found = _object(body)
        pages = found.get("pages")
        try:
            return cls(
                serial=int(found["serial"]),
                state=str(found["state"]),
                synced=found["synced"] is True,
                owners=str(found.get("owners", "")),  # another version has none
                noted=tuple((str(index), str(project), str(owner)) for index, project, owner in found.get("noted", ())),
                pages=None if pages is None else str(pages),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None


@dataclass(frozen=True, kw_only=True)
class State:
    """What a primary has that is in no commit. ``malicious``: the digest of its list of malicious releases."""

    offline: bool
    malicious: str

    @property
    def name(self) -> str:
        """Another one for another state."""
        return f"{'offline' if self.offline else 'online'} {self.malicious}"


@dataclass(frozen=True, kw_only=True)
class Told:
    """The answer to a report. ``uuid``: of the primary's data. ``serial``: of its last commit.

    Where the replica has another one: ``releases``, the list of malicious releases, and ``owners``, the list
    of first owners; None otherwise. ``pages``: the mirrors and projects of pages that were written since, and the
    mark up to which; None for none.
    """

    serial: int
    state: State
    releases: str | None = None
    owners: str | None = None
    pages: Written | None = None
    uuid: str = ""

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: bytes) -> Told:
        """Raises ValueError."""
        found = _object(body)
        try:
            state = State(offline=found["state"]["offline"] is True, malicious=str(found["state"]["malicious"]))
            releases, owners, pages = found["releases"], found.get("owners"), found.get("pages")
            return cls(
                serial=int(found["serial"]),
                state=state,
                releases=None if releases is None else str(releases),
                owners=None if owners is None else str(owners),
                pages=None if pages is None else Written(str(pages["mark"]), tuple(map(_pair, pages["names"]))),
                uuid=str(found.get("uuid", "")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(str(error)) from None


def _pair(found: Any) -> tuple[str, str]:
    mirror, project = found
    return str(mirror), str(project)


def _object(body: bytes) -> Mapping[str, Any]:
    found = parsed(body)
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found
