"""What the server may use, as far as its engine can hold it to that."""

from __future__ import annotations

from dataclasses import replace

from deployer.plan.facts import Facts
from deployer.profile.models import Profile
from deployer.spec import EngineInfo, Limits

OWN_MEMORY = "256m"
"""What our own image lives within, with room: it needs about 80 MiB, and 64 more for each password that it checks."""


def wanted_limits(profile: Profile) -> Limits:
    """What the profile wants the server to be held to."""
    server = profile.server
    return Limits(
        memory=_memory(server.memory, own=not profile.image.ref),
        pids=server.pids,
        nofile=server.nofile,
        cpus=server.cpus,
    )


def held_limits(profile: Profile, facts: Facts) -> Limits:
    """What is wanted, without what this engine can't hold a container to."""
    nothing = Limits()
    limits = replace(wanted_limits(profile), **{name: getattr(nothing, name) for name in facts.engine.unheld})
    if facts.engine.features.daemon or facts.ceiling is None:
        return limits
    # podman is a child of ours, and asks for more processes and files than this host's root may give.
    ceiling = facts.ceiling
    nofile = min(filter(None, (limits.nofile, ceiling.nofile)), default=0)
    return replace(limits, nofile=nofile, nproc=ceiling.nproc)


def _memory(limit: str, *, own: bool) -> str:
    """Ours is known to live within its limit; what another image needs, only its maker knows."""
    if limit != "auto":
        return limit
    return OWN_MEMORY if own else ""


def restart_policy(wanted: str, engine: EngineInfo) -> str:
    """``wanted``, or none at all on an engine that would start again what was stopped."""
    return "no" if wanted.partition(":")[0] in engine.unkept else wanted
