"""Which major version of devpi-server can run on which data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deployer import DISTRIBUTION
from deployer.errors import EngineError, Refused
from deployer.plan.facts import Facts

if TYPE_CHECKING:
    from deployer.profile.models import Profile

LAYOUTS = {"4": "6", "5": "7"}
"""Layout of the server directory -> major version of devpi-server."""
EXTRAS = {"6": "server", "7": "server7"}
"""Major version of devpi-server -> the extra of deployer that installs it."""


def check_server(profile: Profile, facts: Facts) -> None:
    """Raise EngineError when a process would run another major version: an environment has one devpi-server."""
    wanted, found = profile.server.version, facts.engine.version
    if facts.engine.features.containers or found.partition(".")[0] == wanted:
        return
    raise EngineError(
        f"the profile wants devpi-server {wanted}, and this environment has {found}",
        hint=f"install '{DISTRIBUTION}[{EXTRAS[wanted]}]' in another environment, or use a container engine",
    )


def check_layout(profile: Profile, facts: Facts) -> None:
    """Raise Refused for the data of another major version, before the running server is stopped."""
    wanted, maker = profile.server.version, _maker(facts)
    if profile.image.ref or not maker or maker == wanted:
        return
    where = facts.data.path if facts.data is not None else profile.data
    raise Refused(
        f"{where} holds data of devpi-server {maker}, which devpi-server {wanted} can't read; nothing was changed",
        hint=f'set server.version: "{maker}", or {_way(maker, wanted)}',
    )


def _way(maker: str, wanted: str) -> str:
    return f"convert the data: deployer upgrade --to {wanted}" if maker < wanted else "go back: deployer rollback"


def _maker(facts: Facts) -> str:
    """The major version of devpi-server that wrote the data; empty when unknown."""
    if facts.data is not None:
        return LAYOUTS.get(facts.data.layout, "")
    current = facts.current  # a volume can't be read from here, but the tag of our image names the version
    ours = current is not None and current.ours and facts.image_ref.partition(":")[0] == current.image.partition(":")[0]
    return current.image.partition(":")[2].partition(".")[0] if ours and current is not None else ""
