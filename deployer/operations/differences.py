"""Differences between what runs and what the profile says, key by key."""

from __future__ import annotations

from deployer.deployment.record import read_applied
from deployer.operations.apply import same_spec
from deployer.operations.prepare import Prepared
from deployer.plan.drift import strayed
from deployer.profile.load.layers import flatten


def differences(prepared: Prepared) -> tuple[str, ...]:
    """Return what was changed by hand, else the differences between the recorded and the wanted profile."""
    plan, current = prepared.plan, prepared.current
    if current is not None and same_spec(plan, current) and (changed := strayed(plan.spec, current)):
        return tuple(f"changed by hand: {line}" for line in changed)
    applied = read_applied(plan.name)
    if applied is None or not applied.profile:
        return ("the settings of the running server are unknown (no record of the last `up`)",)
    before, after = flatten(applied.profile), flatten(prepared.loaded.profile.model_dump(mode="json"))
    keys = sorted(key for key in before | after if before.get(key) != after.get(key))
    lines = tuple(f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}" for key in keys)
    if not lines and same_spec(plan, current):
        return ("its image was rebuilt after the start",)
    if not lines and plan.plugins is not None:
        return ("same profile, other files of server.option_files, or another version of deployer or of the plugins",)
    return lines or ("same profile, another version of deployer, of the server or of its image",)


def _shown(value: object) -> object:
    return "nothing" if value in (None, "", [], {}) else value
