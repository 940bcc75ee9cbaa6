"""Which indexes a token reads. Pure.

devpi-tokens compares a token with the index of devpi's own views, and its projects with the project of one view. Here
the whole scope is compared with an index, also what its holder has added: a macaroon is narrowed without the server.
A token reads with the permission ``pkg_read``, and the index in its list, if it has one. One that is limited to
projects reads no protected index: an index is read as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from deployer.protocol import parsed

READ = "pkg_read"
"""devpi's permission to read, as tokens name it."""
_IGNORED = ("expires", "not_before")
"""What devpi-tokens has verified when the identity was made."""


@dataclass(frozen=True)
class Scope:
    """What a token is limited to; None: not limited."""

    allowed: frozenset[str] | None = None
    indexes: frozenset[str] | None = None
    projects: frozenset[str] | None = None

    @classmethod
    def of(cls, caveats: Iterable[str]) -> Scope:
        """The scope of a macaroon with these caveats, which narrow it; with an unknown one it reads nothing."""
        found = cls()
        for caveat in caveats:
            key, _, value = caveat.partition("=")
            if key in _IGNORED or _is_time(caveat):
                continue
            if key not in ("allowed", "indexes", "projects"):
                key, value = "allowed", ""
            found = found._narrowed(key, frozenset(one.strip() for one in value.split(",")))
        return found

    def _narrowed(self, key: str, names: frozenset[str]) -> Scope:
        known = getattr(self, key)
        return Scope(**{**self.__dict__, key: names if known is None else known & names})

    def reads(self, index: str) -> bool:
        """Whether ``index`` (``user/name``) may be read within this scope."""
        return (
            (self.allowed is None or READ in self.allowed)
            and (self.indexes is None or index in self.indexes)
            and self.projects is None
        )


def _is_time(caveat: str) -> bool:
    """Whether this limits a token in time, in one of the two forms of other tools, which devpi-tokens verifies, too."""
    try:
        found = parsed(caveat)
    except ValueError:
        return False
    if isinstance(found, list):
        return len(found) == 3 and found[0] == 0
    return isinstance(found, dict) and set(found) == {"nbf", "exp"}


@lru_cache(maxsize=1000)
def scope_of(token: str) -> Scope:
    """The scope of a token whose signature was verified."""
    from pymacaroons import Macaroon

    found = Macaroon.deserialize(token.removeprefix("devpi-"))
    return Scope.of(caveat.to_dict()["cid"] for caveat in found.caveats)


def within_scope(identity: Any, index: str) -> bool:
    """Whether an identity of devpi, by token or password, is not kept from reading ``index`` (``user/name``) by the
    scope of its token."""
    token = getattr(identity, "token", None)
    return token is None or scope_of(token).reads(index)
