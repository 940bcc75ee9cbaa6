"""Orders to a server that runs, with the proof of who gives them, and their outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Self

from deployer.protocol.values import flag_of, is_index_name, is_project_name, text_of


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """``POST /+deployer/open``: the client's proof, for a one-time login."""

    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return "open"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> OpenRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        proof = text_of(body.get("proof")) if isinstance(body, dict) else None
        return cls(proof=proof) if proof is not None and proof.isascii() else None


@dataclass(frozen=True, kw_only=True)
class OfflineRequest:
    """``POST /+deployer/offline``: whether the server should be offline, and the client's proof."""

    offline: bool
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"offline {'on' if self.offline else 'off'}"

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> OfflineRequest | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        offline, proof = flag_of(body.get("offline")), text_of(body.get("proof"))
        if offline is None or proof is None or not proof.isascii():
            return None
        return cls(offline=offline, proof=proof)


@dataclass(frozen=True, kw_only=True)
class RefreshRequest:
    """``POST /+deployer/refresh``: a mirror, its projects by normalised name (None: all that the server knows), and the
    client's proof."""

    index: str
    projects: tuple[str, ...] | None = None
    proof: str = ""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return " ".join(("refresh", self.index, *(("*",) if self.projects is None else self.projects)))

    @property
    def json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def parse(cls, body: object) -> Self | None:
        """Read a request that is not trusted; None when it is invalid."""
        if not isinstance(body, dict):
            return None
        index, projects, proof = text_of(body.get("index")), body.get("projects"), text_of(body.get("proof"))
        if index is None or not is_index_name(index) or proof is None or not proof.isascii():
            return None
        if projects is None:
            return cls(index=index, proof=proof)
        if not isinstance(projects, list) or not all(
            isinstance(name, str) and is_project_name(name) for name in projects
        ):
            return None
        return cls(index=index, projects=tuple(projects), proof=proof)


@dataclass(frozen=True, kw_only=True)
class AcceptRequest(RefreshRequest):
    """``POST /+deployer/accept``: an ordered index, its projects that another base than at first may serve from now on
    (None: all), and the client's proof."""

    @property
    def order(self) -> str:
        """What the proof is for."""
        return f"accept {super().order}"


class Outcome(StrEnum):
    """What a refresh found for one project. ``LEFT``: there was no time for it in this request."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    GONE = "gone"
    NO_ANSWER = "no answer"
    LEFT = "left"


def outcomes(answer: Mapping[str, object]) -> dict[str, Outcome]:
    """Read the answer to a refresh, which is not trusted: the outcome of each project."""
    found = answer.get("projects")
    known = {outcome.value: outcome for outcome in Outcome}
    pairs = found.items() if isinstance(found, dict) else ()
    return {
        name: known[value]
        for name, value in pairs
        if isinstance(value, str) and value in known and is_project_name(name)
    }
