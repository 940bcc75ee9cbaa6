"""The record of the last ``up`` of a deployment on this host, 0600.

What really runs is asked of the engine and of the server. The record only says what was wanted, to show differences;
everything works without it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deployer.errors import ProfileError
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.ownership import unreadable

SCHEMA = 1
_OVERRIDE = {"key", "value", "source"}


@dataclass(frozen=True, kw_only=True)
class Applied:
    """The last successful ``up``: what was wanted, without secrets.

    ``overrides``: profile keys that options set, as the fields of ``profile.load.overrides.Override``. ``data_source``:
    the directory or volume of the data, ``data_uuid``: its uuid; both empty in the record of an older deployer.
    """

    profile_name: str
    profile_ref: str
    engine: str
    simple_url: str
    profile: Mapping[str, Any] = field(default_factory=dict)
    data_source: str = ""
    data_uuid: str = ""
    overrides: Sequence[Mapping[str, Any]] = field(default_factory=list)


def read_applied(name: str) -> Applied | None:
    """Return the record of the last successful ``up``; None when there is none.

    Raises ProfileError when it is damaged or from a newer deployer, ConflictError when it can't be read.
    """
    path = state_dir(name) / "applied.json"
    cure = f"rm {path}; the next 'deployer up' writes it again"
    try:
        record = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise ProfileError(f"{path} is damaged", hint=cure) from None
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        raise ProfileError(f"{path} is damaged", hint=cure)
    if record["schema"] > SCHEMA:
        raise ProfileError(f"{path} was written by a newer deployer", hint=f"upgrade deployer, or {cure}")
    fields = {key: value for key, value in record.items() if key in Applied.__dataclass_fields__}
    overrides = fields.get("overrides", [])
    whole = isinstance(overrides, list) and all(isinstance(one, dict) and one.keys() == _OVERRIDE for one in overrides)
    try:
        if whole:
            return Applied(**fields)
    except TypeError:
        pass
    raise ProfileError(f"{path} is damaged", hint=cure)


def write_applied(name: str, applied: Applied) -> None:
    """Store the record of a successful ``up``; an unchanged one is not written again. Raises ConflictError."""
    record = {"schema": SCHEMA} | {key: getattr(applied, key) for key in Applied.__dataclass_fields__}
    text = json.dumps(record, indent=1, sort_keys=True) + "\n"
    path = state_dir(name) / "applied.json"
    try:
        if path.read_text(encoding="utf-8") == text:
            return
    except (OSError, ValueError):
        pass  # absent, or damaged
    write_private(path, text)


def forget(name: str) -> None:
    """Remove the record. The lock file stays, because removing one that others wait for is a race."""
    (state_dir(name) / "applied.json").unlink(missing_ok=True)
