"""Changes of a cluster that is there: its size, one member made anew, all members begun anew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deployer.deployment.lock import hold
from deployer.deployment.record import read_applied
from deployer.deployment.secret_refs import authorizations
from deployer.errors import ConflictError
from deployer.operations.cluster.places import open_deployed
from deployer.operations.cluster.promote import Promoted, promote
from deployer.operations.cluster.standing import Standing, await_all, await_synced, standing
from deployer.operations.cluster.up import Raised, deadline_of, up
from deployer.operations.recorded import deployed
from deployer.profile.load.overrides import Override
from deployer.ui.prompts import consent

if TYPE_CHECKING:
    from deployer.ui.output import UI

KEY = "cluster.replicas"


def scale(profile: str, name: str, replicas: int, *, lock_wait: float, ui: UI) -> Raised:
    """Have so many replicas, with the profile and the options of the last ``up``. Raises as ``up``."""
    if not replicas:
        raise ConflictError(
            "a cluster has one replica or more", hint="for a single server: deployer down, then deployer up"
        )
    ref, held = deployed(profile, read_applied(name))
    kept = tuple(override for override in held if override.key != KEY)
    done = up(
        ref, name, overrides=(*kept, Override(KEY, replicas, f"--set {KEY}")), ui=ui, clients=False, lock_wait=lock_wait
    )
    ui.note(f"write it into the profile, too, for the next up: cluster: {{replicas: {replicas}}}")
    return done


def renew(profile: str, name: str, number: int, *, yes: bool, lock_wait: float, ui: UI) -> Standing:
    """Give up the data of a replica, and have it follow the primary from nothing."""
    with hold(name, wait=lock_wait):
        cluster, loaded = open_deployed(profile, name, ui)
        if number not in {member.number for member in cluster.members()}:
            raise ConflictError(f"there is no member {number}", hint="deployer cluster status")
        consent(f"the data of member {number}, which is not the primary", yes=yes)
        with ui.working("renew", f"member {number}"):
            cluster.renew(number)
            found = await_synced(cluster, number, deadline=deadline_of(loaded.profile))
    ui.step("renew", f"member {number} is in sync")
    return found


def restart(profile: str, name: str, *, lock_wait: float, ui: UI) -> Sequence[Standing]:
    """Restart the replicas, each once the former one is in sync, and the primary last."""
    with hold(name, wait=lock_wait):
        cluster, loaded = open_deployed(profile, name, ui)
        found = standing(cluster)
        for one in sorted(found, key=lambda one: one.primary):
            with ui.working("restart", f"member {one.number}"):
                cluster.restart(one.number)
                await_synced(cluster, one.number, deadline=deadline_of(loaded.profile))
            ui.step("restart", f"member {one.number}, {one.role}")
        return await_all(lambda: standing(cluster), len(found), deadline=deadline_of(loaded.profile))


def promoted(profile: str, name: str, number: int, *, losing: bool, yes: bool, lock_wait: float, ui: UI) -> Promoted:
    """Make ``number`` the primary, by the profile and the options of the last ``up``."""
    with hold(name, wait=lock_wait):
        cluster, loaded = open_deployed(profile, name, ui)
        headers = authorizations(loaded.profile.indexes, env=os.environ, home=Path.home())
        return promote(cluster, loaded, name, number, losing=losing, yes=yes, headers=headers, ui=ui)
