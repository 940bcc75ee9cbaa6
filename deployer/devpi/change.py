"""One step from the actual to the wanted topology, and its description. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from deployer.devpi.fields import Value
from deployer.secrets import mask_url

UPSTREAM = "mirror_url"
"""The field of a mirror with the address of its upstream."""


_MANY = 20
"""Entries of a list that are shown."""


class Kind(StrEnum):
    CREATE_USER = "create-user"
    MODIFY_USER = "modify-user"
    CREATE_INDEX = "create-index"
    MODIFY_INDEX = "modify-index"
    REMOVE_INDEX = "remove-index"
    REMOVE_USER = "remove-user"
    KEPT = "kept"
    UNCHANGED = "unchanged"


@dataclass(frozen=True, kw_only=True)
class FieldChange:
    """``before`` is None when the field is not set on the server."""

    name: str
    before: Value | None
    after: Value

    @property
    def text(self) -> str:
        if self.before is None:
            return f"{self.name}={_shown(self.after)}"
        if self.name == UPSTREAM:
            return f"mirrors {_shown(self.after)} instead of {_shown(self.before)}"
        before, after = self.before, self.after
        if (
            isinstance(before, tuple)
            and isinstance(after, tuple)
            and len(before) + len(after) > _MANY
            and set(before) != set(after)
        ):
            return f"{self.name} {_entries('+', after, before)} {_entries('-', before, after)}"
        return f"{self.name} {_shown(self.before)} -> {_shown(self.after)}"

    @property
    def is_move(self) -> bool:
        """Whether a mirror gets another upstream; the server takes an address without its last slash for the same."""
        return (
            self.name == UPSTREAM
            and self.before is not None
            and str(self.before).rstrip("/") != str(self.after).rstrip("/")
        )


@dataclass(frozen=True, kw_only=True)
class Change:
    """One step towards the profile, or that none is needed. ``target`` is a user or a ``user/name``.

    ``reason``: why a user or index that the profile does not name is kept.
    """

    kind: Kind
    target: str
    fields: tuple[FieldChange, ...] = ()
    reason: str = ""

    @property
    def due(self) -> bool:
        """Whether it changes the server."""
        return self.kind not in (Kind.KEPT, Kind.UNCHANGED)

    @property
    def values(self) -> dict[str, Value]:
        """The fields that are sent to the server."""
        return {change.name: change.after for change in self.fields}

    @property
    def details(self) -> str:
        """The fields, and what else their change means; credentials in addresses are masked."""
        listed = ", ".join(change.text for change in self.fields)
        former = next((change.before for change in self.fields if change.is_move), None)
        return listed if former is None else f"{listed}; pages of {_shown(former)} are no longer used"

    @property
    def brief(self) -> str:
        """A short description."""
        match self.kind:
            case Kind.CREATE_USER | Kind.CREATE_INDEX:
                return f"{self.target} created"
            case Kind.MODIFY_USER | Kind.MODIFY_INDEX:
                return f"{self.target}: {self.details}"
            case Kind.REMOVE_INDEX | Kind.REMOVE_USER:
                return f"{self.target} removed"
            case Kind.KEPT | Kind.UNCHANGED:
                return f"{self.target} {self.kind}"

    @property
    def text(self) -> str:
        """A description of one line; credentials in addresses are masked."""
        noun = "index" if "/" in self.target else "user"
        match self.kind:
            case Kind.CREATE_USER | Kind.CREATE_INDEX:
                return f"create {noun} {self.target}" + (f" with {self.details}" if self.details else "")
            case Kind.MODIFY_USER | Kind.MODIFY_INDEX:
                return f"modify {noun} {self.target}: {self.details}"
            case Kind.REMOVE_INDEX | Kind.REMOVE_USER:
                return f"remove {noun} {self.target}"
            case Kind.KEPT:
                why = f": {self.reason}" if self.reason else ""
                return f"keep {noun} {self.target}, which the profile does not name{why}"
            case Kind.UNCHANGED:
                return f"{noun} {self.target} unchanged"


def _entries(sign: str, these: tuple[str, ...], others: tuple[str, ...]) -> str:
    """The entries that only one side of a long list has."""
    return f"{sign}[{_first(sorted(set(these) - set(others)))}]"


def _first(entries: Sequence[str]) -> str:
    more = [f"and {len(entries) - _MANY} more"] if len(entries) > _MANY else []
    return ", ".join([*entries[:_MANY], *more])


def _shown(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{_first(value)}]"
        case str():
            return mask_url(value) or '""'
        case _:
            return str(value)
