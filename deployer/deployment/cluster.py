"""What this host keeps of a cluster: where its members run, and for one on this host, which of them is the primary."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from deployer.errors import ProfileError
from deployer.files import make_private, write_private
from deployer.host.state_dir import state_dir
from deployer.ownership import unreadable
from deployer.protocol import parsed
from deployer.typed import built

FILE = "cluster.json"
HERE = "host"
"""The place of members on this host."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """``place``: ``host``, ``swarm`` or ``kubernetes``. The rest is of a cluster on this host; another place keeps it
    itself: ``engine``, ``primary``, ``uuid``, and ``size``: the most members that there were. ``former``: the member
    that was the primary, and whose data are not yet given up; -1 without."""

    place: str
    engine: str = ""
    primary: int = 0
    uuid: str = ""
    size: int = 0
    former: int = -1


def member_name(name: str, number: int) -> str:
    """The name of a member's own deployment, which no command line can give: names have no dot."""
    return f"{name}.{number}"


def read_kept(name: str) -> Kept | None:
    """What is kept of the cluster ``name``; None when it is none. Raises ProfileError, ConflictError."""
    path = state_dir(name) / FILE
    try:
        return built(Kept, parsed(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise ProfileError(
            f"{path} is damaged", hint=f"restore it from a backup; primary and uuid are those of {name}'s members"
        ) from None


def write_kept(name: str, kept: Kept) -> None:
    """Keep it, 0600. Raises ConflictError."""
    path = state_dir(name) / FILE
    make_private(path.parent)
    write_private(path, json.dumps(asdict(kept)) + "\n")


def forget_kept(name: str) -> None:
    """Forget that ``name`` is a cluster."""
    (state_dir(name) / FILE).unlink(missing_ok=True)


def server_of(name: str) -> str:
    """The deployment whose server takes what commands do to ``name``: the primary of a cluster on this host."""
    kept = read_kept(name)
    return name if kept is None or kept.place != HERE else member_name(name, kept.primary)


def elsewhere(name: str) -> str:
    """The place of a cluster whose members are not on this host: ``swarm`` or ``kubernetes``; empty for all else."""
    kept = read_kept(name)
    return "" if kept is None or kept.place == HERE else kept.place
