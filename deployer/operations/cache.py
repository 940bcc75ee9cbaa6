"""What the server has cached, and pruning it: the orders of ``deployer cache``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deployer.deployment.session import Session
from deployer.devpi.names import project_name
from deployer.errors import ConflictError, UsageError
from deployer.protocol import (
    FileItem,
    InventoryRequest,
    KindTotal,
    ProjectItem,
    Pruned,
    PruneRequest,
    parse_size,
)

OTHERWISE = "make its server anew: deployer up"
"""The hint where no proof can be made, or a server takes no such order."""


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Projects, or files of one, and totals by kind of all that the server has."""

    projects: tuple[ProjectItem, ...] = ()
    files: tuple[FileItem, ...] = ()
    totals: Mapping[str, KindTotal]


def contents(session: Session, wanted: InventoryRequest) -> Contents:
    """Ask the server, in parts. ``wanted.project``: in any spelling. Raises UsageError for an invalid one."""
    if wanted.project:
        wanted = replace(wanted, project=project_name(wanted.project))
    found: list[ProjectItem] = []
    files: list[FileItem] = []
    while True:
        answer = session.api.inventory(wanted, proof_key=_key(session))
        found += answer["projects"]
        files += answer["files"]
        if not answer["after"] or answer["after"] <= wanted.after:
            return Contents(projects=tuple(found), files=tuple(files), totals=answer["totals"])
        wanted = replace(wanted, after=answer["after"])


def prune(session: Session, wanted: PruneRequest, tell: Callable[[str], None]) -> Pruned:
    """Have the server prune, again and again until nothing is left to do. ``tell``: takes progress.

    Raises ConflictError for a server that is offline, UsageError for an invalid name of a project.
    """
    if wanted.project:
        wanted = replace(wanted, project=project_name(wanted.project))
    if session.identity.offline and not wanted.dry:
        raise ConflictError(
            "the server is offline: what is pruned could not be fetched again", hint="deployer offline off"
        )
    key = _key(session)
    parts: list[Pruned] = []
    while True:
        part = session.api.prune(wanted, proof_key=key)
        parts.append(part)
        done = joined(parts)
        if not part["left"] or not (part["removed"] or part["spared"]):
            return done
        if wanted.dry:
            return done
        tell(f"{sum(of['number'] for of in done['removed'].values())} files")


def size_of(text: str, option: str) -> int:
    """Bytes of a size like 20g; 0 is one. Raises UsageError, which names ``option``."""
    try:
        return 0 if text == "0" else parse_size(text)
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a size", hint="write it like 500m or 20g") from None


def joined(parts: Sequence[Pruned]) -> Pruned:
    """The parts of one run as one."""
    removed: dict[str, KindTotal] = {}
    projects: Counter[str] = Counter()
    for part in parts:
        projects.update(part["projects"])
        for kind, of in part["removed"].items():
            total = removed.setdefault(kind, KindTotal(number=0, bytes=0))
            total["number"] += of["number"]
            total["bytes"] += of["bytes"]
    last = parts[-1]
    return Pruned(
        removed=removed,
        projects=dict(sorted(projects.items())),
        linked_bytes=sum(part["linked_bytes"] for part in parts),
        spared=last["spared"],
        cache_bytes=last["cache_bytes"],
        left=last["left"],
    )


def _key(session: Session) -> str:
    assert session.deployment is not None  # noqa: S101 - there is no --url
    return session.deployment.proof_key(otherwise=OTHERWISE)
