"""Have the server ask the upstreams of its mirrors anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from deployer.deployment.session import Session
from deployer.devpi.admission import require_index
from deployer.devpi.api import NO_REFRESH
from deployer.devpi.names import project_name
from deployer.errors import ConflictError
from deployer.protocol import Outcome


@dataclass(frozen=True, kw_only=True)
class Refreshed:
    """The outcome of each project, mirror by mirror."""

    mirrors: Mapping[str, Mapping[str, Outcome]] = field(default_factory=dict)

    def of(self, outcome: Outcome) -> tuple[str, ...]:
        """The projects with this outcome, as ``user/index/project``."""
        return tuple(
            f"{index}/{name}"
            for index, found in sorted(self.mirrors.items())
            for name, one in sorted(found.items())
            if one is outcome
        )

    @property
    def silent(self) -> tuple[str, ...]:
        """The mirrors whose upstream did not answer for some project."""
        return tuple(sorted(index for index, found in self.mirrors.items() if Outcome.NO_ANSWER in found.values()))


def refresh(session: Session, index: str, projects: Sequence[str]) -> Refreshed:
    """Refresh ``projects`` of the mirror ``index``; all that the server knows when there are none, of all mirrors when
    ``index`` is empty. The session is with a deployment.

    Raises UsageError for the name of a project, ServerRefused for an index that is no mirror, ConflictError for a
    server that is offline or not ours.
    """
    names = tuple(dict.fromkeys(map(project_name, projects))) or None
    topology = session.api.topology()
    if index:
        require_index(index, topology, kind="mirror")
    if session.identity.offline:
        raise ConflictError("the server is offline: it asks no upstream", hint="deployer offline off")
    assert session.deployment is not None  # noqa: S101 - narrowed by the caller
    key = session.deployment.proof_key(otherwise=NO_REFRESH)
    mirrors = [index] if index else [name for name, node in sorted(topology.indexes.items()) if node.type == "mirror"]
    return Refreshed(mirrors={name: session.api.refresh(name, names, proof_key=key) for name in mirrors})
