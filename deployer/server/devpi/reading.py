"""Who may read an index: a user by password, or a token within its scope. Pure.

devpi knows no protected index, and devpi-tokens compares a token with the index of devpi's own views only. Here the
whole scope is compared, also what its holder has added: a macaroon can be narrowed without the server.

- A protected index is read by its readers and by root.
- A token reads for its user. It needs the permission ``pkg_read``, and the index in its list, if it has one.
- A token limited to projects reads no protected index: an index is read as a whole.
- An index for everybody is read by everybody: no token makes its holder less than anonymous.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from deployer.protocol import parsed

READ = "pkg_read"
"""devpi's permission to read, as tokens name it."""
EVERYBODY, USERS = ":ANONYMOUS:", ":AUTHENTICATED:"
"""devpi's names for those who need no login, and for all who have one."""
ROOT = "root"
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


def may_read(identity: Any, index: str, readers: Collection[str] | None) -> bool:
    """Whether ``identity`` may read ``index`` (``user/name``).

    ``identity``: of devpi (``request.identity``), None for an anonymous client. ``readers``: names as in devpi's
    access lists, with ``:AUTHENTICATED:``, and ``:GROUP`` for a group of another directory; None for everybody.
    """
    if readers is None or EVERYBODY in readers:
        return True
    if identity is None:
        return False
    principals = {identity.username, USERS, *(f":{group}" for group in identity.groups)}
    if identity.username != ROOT and principals.isdisjoint(readers):
        return False
    token = getattr(identity, "token", None)
    return token is None or scope_of(token).reads(index)
