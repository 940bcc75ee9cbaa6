"""Make another member the primary, by hand: the former one is fenced first. Nobody is elected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from deployer.clusters.base import Cluster, Identity
from deployer.errors import ConflictError, DeployerError, EngineError, Refused, of_refusal
from deployer.operations.cluster.standing import Standing, await_all, standing
from deployer.operations.cluster.up import deadline_of, give_credentials, wanted_of
from deployer.profile.load import Loaded
from deployer.protocol import Refusal, parsed
from deployer.spec import State
from deployer.ui.prompts import consent

if TYPE_CHECKING:
    from deployer.secrets import Secret
    from deployer.ui.output import UI

FENCE = timedelta(seconds=30)
"""Seconds that the former primary has to stop."""


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """``lost``: what the server told of commits and uploads that the new primary does not have. ``renewed``: whether
    the former primary follows now, on new data; it keeps its data where something may be lost."""

    primary: int
    former: int
    lost: Mapping[str, Any]
    renewed: bool
    members: Sequence[Standing]

    @property
    def complete(self) -> bool:
        return is_complete(self.lost)


def is_complete(lost: Mapping[str, Any]) -> bool:
    """Whether nothing is lost, as far as the new primary knows."""
    return lost.get("commits_lost") == 0 and not lost.get("uploads_missing")


def promote(
    cluster: Cluster,
    loaded: Loaded,
    name: str,
    number: int,
    *,
    losing: bool,
    yes: bool,
    headers: Mapping[str, Secret],
    ui: UI,
) -> Promoted:
    """Make ``number`` the primary. The caller holds the lock. ``losing``: the user accepts that commits are lost.

    Raises Refused, ConflictError before any effect.
    """
    identity, found = cluster.identity(), standing(cluster)
    if identity is None or not found:
        raise ConflictError(f"there is no cluster named {name!r}", hint="deployer up")
    check(found, identity.primary, number, losing=losing)
    former = next((one for one in found if one.number == identity.primary), None)
    running = former is not None and former.member.state is State.RUNNING
    if running:
        consent(
            f"stop the primary, member {identity.primary}: writes are refused until member {number} has its role",
            yes=yes,
        )
    with suppress(DeployerError):
        cluster.password()  # of the former primary, for the next one
    with ui.working("fence", f"stopping member {identity.primary}"):
        if former is not None:
            cluster.stop(identity.primary, timeout=FENCE)
    ui.step("fence", f"member {identity.primary} is stopped, and takes no writes")
    lost = _ordered(cluster, number, identity.primary, losing=losing, running=running)
    cluster.remember(Identity(primary=number, uuid=identity.uuid))
    with ui.working("promote", f"member {number}") as progress:
        wanted = wanted_of(loaded, name, cluster)
        cluster.apply(wanted, progress)
    give_credentials(cluster, number, headers)
    ui.step("promote", f"member {number} is the primary")
    renewed = former is not None and is_complete(lost)
    if renewed:
        with ui.working("renew", f"member {identity.primary} on an empty directory"):
            cluster.renew(identity.primary)
    ahead = {one.number for one in _ahead(found, identity.primary, number)}
    apart = ahead if renewed else ahead | {identity.primary}
    with ui.working("members", name) as progress:
        members = await_all(
            lambda: [one for one in standing(cluster) if one.number not in apart],
            wanted.size - len(apart),
            deadline=deadline_of(loaded.profile),
            on_line=progress,
        )
    ui.step("members", ", ".join(f"{one.number} {one.role}" for one in members))
    for other in sorted(ahead):
        ui.warn(
            f"member {other} has commits that member {number} lacks, and does not follow it: take out what is missing, "
            f"then run deployer cluster renew {other}"
        )
    return Promoted(primary=number, former=identity.primary, lost=lost, renewed=renewed, members=members)


def check(found: Sequence[Standing], primary: int, number: int, *, losing: bool) -> None:
    """Raise unless ``number`` may be the primary. Pure."""
    chosen = next((one for one in found if one.number == number), None)
    if chosen is None:
        raise ConflictError(f"there is no member {number}", hint="deployer cluster status")
    if number == primary:
        raise ConflictError(f"member {number} is the primary", hint="deployer cluster status")
    if chosen.status is None:
        raise ConflictError(
            f"member {number} does not answer: {chosen.text}", hint="choose another member: deployer cluster status"
        )
    if chosen.status.errors:
        raise ConflictError(
            f"member {number} does not follow its primary: {chosen.status.errors[0]}",
            hint="choose another member: deployer cluster status",
        )
    ahead = _ahead(found, primary, number)
    if ahead and not losing:
        best = max(ahead, key=lambda one: one.status.serial if one.status else 0)
        assert best.status is not None  # noqa: S101 - chosen by it
        raise Refused(
            f"member {best.number} has {best.status.serial - chosen.status.serial} commits more than member {number}",
            hint=f"deployer cluster promote {best.number}; to lose them: --even-if-behind",
        )


def _ahead(found: Sequence[Standing], primary: int, number: int) -> list[Standing]:
    """The replicas that have more than ``number``, the next primary."""
    serial = next(one.status.serial if one.status else 0 for one in found if one.number == number)
    return [one for one in found if one.number != primary and one.status and one.status.serial > serial]


def _ordered(cluster: Cluster, number: int, former: int, *, losing: bool, running: bool) -> Mapping[str, Any]:
    """Order the promotion; what is lost by it. The former primary runs again if that is refused."""
    done = cluster.exec(number, ("member", "promote", *(("--even-if-behind",) if losing else ())))
    if not done.returncode:
        found: Mapping[str, Any] = parsed(done.stdout)
        return found
    if running:
        with suppress(EngineError):
            cluster.restart(former)
    refusal = Refusal.parse(done.stderr.splitlines())
    if refusal is None:
        raise EngineError(f"member {number}: {done.stderr.strip()[-300:]}", hint=f"deployer logs --member {number}")
    raise of_refusal(refusal, prefix=f"member {number}: ")
