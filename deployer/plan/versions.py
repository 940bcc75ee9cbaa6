"""Which devpi-server runs on which data: none converts what another major version has made."""

from __future__ import annotations

from deployer.errors import EngineError, Refused
from deployer.plan.facts import Facts
from deployer.profile.models import Profile

LAYOUTS = {"4": "6", "5": "7"}
"""The major version of devpi-server that has a layout of the server directory, which no other one takes."""
EXTRAS = {"6": "server", "7": "server7"}
"""What to install for a process of each major version."""


def check_server(profile: Profile, facts: Facts) -> None:
    """A process is the devpi-server that is installed, and an environment has one."""
    wanted, found = profile.server.version, facts.engine.version
    if facts.engine.features.containers or found.partition(".")[0] == wanted:
        return
    raise EngineError(
        f"the profile wants devpi-server {wanted}, and {found} is installed beside deployer",
        hint=f"use an environment with 'deployer[{EXTRAS[wanted]}]', or a container engine, or set server.version",
    )


def check_layout(profile: Profile, facts: Facts) -> None:
    """Our server would refuse data of another major version: so it is, before what runs on it is stopped."""
    wanted, maker = profile.server.version, _maker(facts)
    if profile.image.ref or not maker or maker == wanted:
        return
    where = facts.data.path if facts.data is not None else profile.data
    raise Refused(
        f"{where} holds data of devpi-server {maker}, and the profile wants devpi-server {wanted}, which does not "
        "convert it; nothing was touched",
        hint=f'stay with server.version: "{maker}", or export it with devpi-server {maker} and import it into a new '
        "directory",
    )


def _maker(facts: Facts) -> str:
    """The major version of devpi-server that the data is of; empty when that is not known."""
    if facts.data is not None:
        return LAYOUTS.get(facts.data.layout, "")
    current = facts.current  # what a volume holds only a server on it can tell, and ours has its version in its name
    ours = current is not None and current.ours and facts.image_ref.partition(":")[0] == current.image.partition(":")[0]
    return current.image.partition(":")[2].partition(".")[0] if ours and current is not None else ""
