"""Resource limits of the server, as far as its engine can enforce them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from deployer.plan.facts import Facts
from deployer.spec import EngineInfo, Limits

if TYPE_CHECKING:
    from deployer.profile.models import Profile

OWN_MEMORY = "256m"
"""Memory limit of our own image: it needs about 80 MiB, and 64 MiB more while it checks a password."""


def wanted_limits(profile: Profile) -> Limits:
    """The limits that the profile asks for."""
    server = profile.server
    return Limits(
        memory=_memory(server.memory, own=not profile.image.ref),
        pids=server.pids,
        nofile=server.nofile,
        cpus=server.cpus,
    )


def held_limits(profile: Profile, facts: Facts) -> Limits:
    """The limits that this engine can enforce."""
    nothing = Limits()
    limits = replace(wanted_limits(profile), **{name: getattr(nothing, name) for name in facts.engine.unheld})
    if facts.engine.features.daemon or facts.ceiling is None:
        return limits
    # An engine without a daemon inherits our hard limits, and fails when it asks for more.
    ceiling = facts.ceiling
    nofile = min(filter(None, (limits.nofile, ceiling.nofile)), default=0)
    return replace(limits, nofile=nofile, nproc=ceiling.nproc)


def _memory(limit: str, *, own: bool) -> str:
    """``auto`` limits only our own image: the need of another image is unknown."""
    if limit != "auto":
        return limit
    return OWN_MEMORY if own else ""


def restart_policy(wanted: str, engine: EngineInfo) -> str:
    """``wanted``, or "no" on an engine that does not support it and would restart a stopped container."""
    return "no" if wanted.partition(":")[0] in engine.unkept else wanted
