"""One step from the actual to the wanted topology, and its description. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deployer.devpi.fields import Value
from deployer.secrets import mask_url


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
        return f"{self.name} {_shown(self.before)} -> {_shown(self.after)}"


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
    def brief(self) -> str:
        """A short description."""
        match self.kind:
            case Kind.CREATE_USER | Kind.CREATE_INDEX:
                return f"{self.target} created"
            case Kind.MODIFY_USER | Kind.MODIFY_INDEX:
                return f"{self.target}: {', '.join(change.text for change in self.fields)}"
            case Kind.REMOVE_INDEX | Kind.REMOVE_USER:
                return f"{self.target} removed"
            case Kind.KEPT | Kind.UNCHANGED:
                return f"{self.target} {self.kind}"

    @property
    def text(self) -> str:
        """A description of one line; credentials in addresses are masked."""
        noun = "index" if "/" in self.target else "user"
        details = ", ".join(change.text for change in self.fields)
        match self.kind:
            case Kind.CREATE_USER | Kind.CREATE_INDEX:
                return f"create {noun} {self.target}" + (f" with {details}" if details else "")
            case Kind.MODIFY_USER | Kind.MODIFY_INDEX:
                return f"modify {noun} {self.target}: {details}"
            case Kind.REMOVE_INDEX | Kind.REMOVE_USER:
                return f"remove {noun} {self.target}"
            case Kind.KEPT:
                why = f": {self.reason}" if self.reason else ""
                return f"keep {noun} {self.target}, which the profile does not name{why}"
            case Kind.UNCHANGED:
                return f"{noun} {self.target} unchanged"


def _shown(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case tuple():
            return "[" + ", ".join(value) + "]"
        case str():
            return mask_url(value) or '""'
        case _:
            return str(value)
