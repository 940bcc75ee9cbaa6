"""A member of a cluster, as it reports itself to whoever can read its directory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from deployer.protocol.values import flag_of, text_of

CLUSTER_UUID = "DEPLOYER_CLUSTER_UUID"
"""The variable for ``--cluster-uuid``, for a place that gives it to a container that it starts anew by itself."""


@dataclass(frozen=True, kw_only=True)
class MemberRequest:
    """``POST /+deployer/member/status``: the client's proof."""

    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return "member status"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> MemberRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        proof = text_of(body.get("proof")) if isinstance(body, dict) else None
        return cls(proof=proof) if proof is not None and proof.isascii() else None


@dataclass(frozen=True, kw_only=True)
class MemberStatus:
    """What a running member has. ``number``: None for a server that is no numbered member.

    ``uuid``: of the primary's data, which the whole cluster has; empty while a replica does not know it. ``serial``: up
    to which this member has all commits, and the files of their uploads. ``primary_serial``: of the primary's last
    commit, as last told; -1 while a replica does not know it.

    ``lag_seconds``: since when this member may lack something of the primary; 0 while it lacks nothing, None when that
    is unknown since its start. ``synced``: it serves, and lacked nothing within the last ten seconds.
    ``files_in_sync``: it has all files of the primary but those that are fetched on demand. ``files_missing``: files
    that it is to fetch, as far as it knows. ``errors``: what keeps it from following, a line each.
    ``version``: deployer's; ``server_version``: devpi-server's.
    ``last_contact_seconds``: since the primary's last answer; None for a primary, and before the first one.
    ``primary_answers``: whether it answered the last report; True for a primary.
    ``front``: who answers its clients, ``nginx VERSION`` or ``python: `` and why; empty from an older member.
    """

    number: int | None
    role: str
    uuid: str
    serial: int
    primary_serial: int
    lag_seconds: float | None
    synced: bool
    files_in_sync: bool
    files_missing: int
    errors: tuple[str, ...]
    version: str
    server_version: str
    last_contact_seconds: float | None
    primary_answers: bool
    front: str = ""

    @property
    def json(self) -> dict[str, Any]:
        return {**asdict(self), "errors": list(self.errors)}

    @classmethod
    def parse(cls, found: object) -> MemberStatus:
        """Read what ``member status`` printed. Raises ValueError."""
        if not isinstance(found, Mapping):
            raise ValueError("not an object")
        try:
            return cls(
                number=None if found["number"] is None else int(found["number"]),
                role=str(found["role"]),
                uuid=str(found["uuid"]),
                serial=int(found["serial"]),
                primary_serial=int(found["primary_serial"]),
                lag_seconds=_seconds(found["lag_seconds"]),
                synced=flag_of(found["synced"]) is True,
                files_in_sync=flag_of(found["files_in_sync"]) is True,
                files_missing=int(found["files_missing"]),
                errors=tuple(str(line) for line in found["errors"]),
                version=str(found["version"]),
                server_version=str(found["server_version"]),
                last_contact_seconds=_seconds(found["last_contact_seconds"]),
                primary_answers=flag_of(found["primary_answers"]) is True,
                front=str(found.get("front", "")),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no status of a member: {error}") from None


def _seconds(found: Any) -> float | None:
    return None if found is None else float(found)
