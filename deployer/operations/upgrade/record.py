"""The record of an upgrade (0600, in the state directory): where the way back leads to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from deployer.deployment.record import Applied
from deployer.errors import ProfileError
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.ownership import unreadable
from deployer.protocol import parsed
from deployer.typed import built


@dataclass(frozen=True, kw_only=True)
class Upgraded:
    """``major``, ``server_version``, ``deployer``, ``python``, ``applied``: of the deployment before. ``to``: the major
    version that it was upgraded to. ``kept``: the set of data that is kept, empty while the upgrade is not complete.

    ``python``: the interpreter of a process; empty for a container.
    """

    major: str
    to: str
    server_version: str
    deployer: str
    applied: Applied
    python: str = ""
    kept: str = ""


def _path(name: str) -> Path:
    return state_dir(name) / "upgrade.json"


def read_upgraded(name: str) -> Upgraded | None:
    """The last upgrade that was not gone back from. Raises ProfileError when its record is damaged."""
    path = _path(name)
    try:
        return built(Upgraded, parsed(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise ProfileError(f"{path} is damaged", hint=f"rm {path}; there is no way back then but a backup") from None


def write_upgraded(name: str, upgraded: Upgraded) -> None:
    """Raises ConflictError."""
    write_private(_path(name), json.dumps(asdict(upgraded), indent=1) + "\n")


def forget_upgraded(name: str) -> None:
    _path(name).unlink(missing_ok=True)
