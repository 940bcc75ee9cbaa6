"""The checks of a cluster: its place, each member, and the address for clients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from deployer.diagnosis import Check, Level, ok
from deployer.diagnosis.service import front
from deployer.errors import DeployerError
from deployer.operations.cluster.standing import Standing, standing
from deployer.operations.cluster.status import unanswered

if TYPE_CHECKING:
    from deployer.clusters.base import Cluster

LATE = 60.0
"""Seconds of lag from which on a replica is not just busy."""


def checks(cluster: Cluster) -> Iterator[Check]:
    """Check after check, as each is made."""
    try:
        yield ok("place", f"{cluster.place}: {cluster.probe()}")
    except DeployerError as error:
        yield Check(name="place", level=Level.FAILURE, evidence=error.message, cure=error.hint)
        return
    members = standing(cluster)
    if not members:
        yield Check(name="members", level=Level.FAILURE, evidence="there are none", cure="deployer up")
        return
    for one in members:
        yield of_member(one)
    yield of_fronts(members)
    yield of_versions(members)
    yield of_address(cluster.address())
    if (https := cluster.https()) is not None:
        from deployer.deployment.certificate import seen
        from deployer.diagnosis.tls import tls

        yield tls(seen(https.url))


def of_member(one: Standing) -> Check:
    """What is wrong with a member. Pure."""
    name = f"member {one.number}"
    if one.ready:
        return ok(name, f"{one.role}, {one.text}")
    if one.status is None:
        cure = "deployer up" if one.member.state != "running" else f"deployer logs --member {one.number}"
        return Check(name=name, level=Level.FAILURE, evidence=one.text, cure=cure)
    if one.status.errors:
        return Check(
            name=name,
            level=Level.FAILURE,
            evidence=one.text,
            cure=f"deployer logs --member {one.number}; if it stays so: deployer cluster renew {one.number}",
        )
    late = (one.status.lag_seconds or 0) > LATE
    return Check(
        name=name,
        level=Level.FAILURE if late else Level.WARNING,
        evidence=f"{one.text}, for {one.status.lag_seconds or 0:.0f} s",
        cure=f"wait; if it stays so: deployer logs --member {one.number}",
    )


def of_fronts(members: tuple[Standing, ...]) -> Check:
    """Check the front of each member; the evidence names the first member without nginx. Pure."""
    for one in members:
        if one.status is not None and one.status.front:
            found = front(one.status.front, in_container=bool(one.member.image))
            if found.level is not Level.OK:
                return replace(found, evidence=f"member {one.number}: {found.evidence}")
    return ok("front", "nginx sends files and pages of each member")


def of_versions(members: tuple[Standing, ...]) -> Check:
    """Whether all members run the same version of deployer's server. Pure."""
    found = {one.status.version for one in members if one.status is not None}
    if len(found) > 1:
        return Check(
            name="versions", level=Level.WARNING, evidence=f"members run {', '.join(sorted(found))}", cure="deployer up"
        )
    return ok("versions", ", ".join(found) or "unknown")


def of_address(url: str) -> Check:
    """Whether clients are answered."""
    if not url:
        return ok("address", "the place gives none to clients")
    if (why := unanswered(url)) is not None:
        return Check(name="address", level=Level.FAILURE, evidence=f"{url} does not answer: {why}", cure="deployer up")
    return ok("address", url)
