"""The record of the last ``up`` of a deployment on this host, 0600.

What really runs is asked of the engine and of the server. The record only says what was wanted, to show differences;
everything works without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from deployer.errors import ProfileError
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.ownership import unreadable
from deployer.protocol import parsed
from deployer.typed import built

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class _Versioned:
    schema: int


@dataclass(frozen=True, kw_only=True)
class Overridden:
    """A profile key that an option set: the fields of ``profile.load.overrides.Override``."""

    key: str
    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The last successful ``up``: what was wanted, without secrets.

    ``data_source``: the directory or volume of the data, ``data_uuid``: its uuid; both empty in the record of an older
    deployer. ``public_url``: the address of HTTPS, as clients on other hosts get it; empty without.
    """

    profile_name: str
    profile_ref: str
    engine: str
    simple_url: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    data_source: str = ""
    data_uuid: str = ""
    overrides: Sequence[Overridden] = ()
    public_url: str = ""


def read_applied(name: str) -> Applied | None:
    """Return the record of the last successful ``up``; None when there is none.

    Raises ProfileError when it is damaged or from a newer deployer, ConflictError when it can't be read.
    """
    path = state_dir(name) / "applied.json"
    cure = f"rm {path}; the next 'deployer up' writes it again"
    try:
        record = parsed(path.read_bytes())
        schema = built(_Versioned, record).schema
        if schema <= SCHEMA:
            return built(Applied, record)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise ProfileError(f"{path} is damaged", hint=cure) from None
    raise ProfileError(f"{path} was written by a newer deployer", hint=f"upgrade deployer, or {cure}")


def write_applied(name: str, applied: Applied) -> None:
    """Store the record of a successful ``up``; an unchanged one is not written again. Raises ConflictError."""
    record = {"schema": SCHEMA} | asdict(applied)
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    path = state_dir(name) / "applied.json"
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass  # absent, or damaged
    write_private(path, text)


def forget_data(name: str) -> None:
    """Remove the identity of the data from the record: it is about to be deleted, and no later ``up`` may miss it."""
    applied = read_applied(name)
    if applied is not None:
        write_applied(name, replace(applied, data_uuid=""))


def forget(name: str) -> None:
    """Remove the record. The lock file stays, because removing one that others wait for is a race."""
    (state_dir(name) / "applied.json").unlink(missing_ok=True)
