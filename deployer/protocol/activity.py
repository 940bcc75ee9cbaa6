"""What happens and happened: counts, the log of changes, the history, requests of now."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NotRequired, TypedDict

from deployer.protocol.values import number_of, text_of


class IndexCounts(TypedDict):
    """Requests for one index; bytes are those of bodies. ``refused``: files that a rule held back, by rule."""

    requests: int
    hits: int
    misses: int
    bytes_served: int
    bytes_saved: int
    refused: NotRequired[dict[str, int]]


class UpstreamCounts(TypedDict):
    """Requests to one upstream. ``slowest``: seconds until an answer began."""

    requests: float
    failures: float
    bytes: float
    slowest: float


class Counted(TypedDict):
    """The statistics file. ``read``: pairs of inode and offset up to which the access logs are counted."""

    since: str
    indexes: dict[str, IndexCounts]
    upstreams: dict[str, UpstreamCounts]
    read: NotRequired[list[int]]


class Change(TypedDict):
    """One line of the log of changes. ``time``: ISO 8601, UTC. ``details``: names of the fields that were set, never
    their values; or the name of a file. ``status``: that of the answer."""

    time: str
    client: str
    user: str
    action: str
    target: str
    details: list[str]
    status: int


class HistoryUpstream(TypedDict):
    """What one upstream did in one hour. ``waited``: seconds until the answers of ``answered`` requests began, in all;
    ``slowest``: the longest of them."""

    requests: int
    failures: int
    bytes: int
    answered: int
    waited: float
    slowest: float


class HistoryHour(TypedDict):
    """One hour. ``hour``: its beginning (ISO 8601, UTC). ``errors``: answers with a status of 500 or more. Bytes are
    those of bodies; ``bytes`` of ``upstreams`` are what was fetched."""

    hour: str
    requests: int
    hits: int
    misses: int
    errors: int
    bytes_served: int
    bytes_saved: int
    upstreams: dict[str, HistoryUpstream]


class HistoryFile(TypedDict):
    """The hours of the last ninety days in which anything happened, the oldest first."""

    hours: list[HistoryHour]


@dataclass(frozen=True, kw_only=True)
class ActivityRequest:
    """``POST /+deployer/activity``: what happens now, and the client's proof. ``most``: requests that are listed."""

    most: int = 20
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"activity {self.most}"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> ActivityRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        most, proof = number_of(body.get("most", 20)), text_of(body.get("proof"))
        if most is None or not 0 <= most <= 500 or proof is None or not proof.isascii():
            return None
        return cls(most=most, proof=proof)


class RecentRequest(TypedDict):
    """One request, as the access log has it. ``sent_by``: ``page``, ``file`` or ``devpi``. ``hit``: whether a page or a
    file was stored; None for anything else."""

    time: str
    client: str
    method: str
    path: str
    status: int
    bytes: int
    seconds: float
    sent_by: str
    hit: bool | None


class UpstreamNow(TypedDict):
    """The state of an upstream: ``up``, ``quiet`` or ``down``, and the requests under way."""

    state: str
    asking: int


class ThreadsNow(TypedDict):
    """Threads that answer requests. ``queued``: requests that wait for one."""

    total: int
    busy: int
    queued: int


class QuotaNow(TypedDict):
    """Bytes of uploads of an index, and its quota."""

    used: int
    limit: int


class Activity(TypedDict):
    """``POST /+deployer/activity``. ``counted``: since counting began. ``recent``: the latest first.
    ``quotas``: by index."""

    at: str
    counted: Counted
    upstreams: dict[str, UpstreamNow]
    threads: ThreadsNow
    recent: list[RecentRequest]
    quotas: NotRequired[dict[str, QuotaNow]]
