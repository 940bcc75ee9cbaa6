"""Which indexes a token reads, also one that its holder has narrowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

pytest.importorskip("devpi_tokens")

from pymacaroons import MACAROON_V2, Macaroon

from deployer.server.devpi.token_scope import Scope, scope_of, within_scope


@dataclass
class User:
    username: str
    groups: Sequence[str] = ()


@dataclass
class Token(User):
    token: str = field(default="", repr=False)


def token(*caveats: str, user: str = "ann") -> Token:
    made = Macaroon(identifier=f"{user}-x", key="k", version=MACAROON_V2)
    for caveat in caveats:
        made.add_first_party_caveat(caveat)
    return Token(user, token=f"devpi-{made.serialize()}")


@pytest.mark.parametrize(
    ("caveats", "reads"),
    [
        ([], True),
        (["expires=9999999999"], True),
        (["expires=never", "not_before=0"], True),
        (["allowed=pkg_read"], True),
        (["allowed=pkg_read,upload"], True),
        (["allowed=upload"], False),
        (["allowed="], False),
        (["indexes=ann/own"], True),
        (["indexes=ann/other, ann/own"], True),
        (["indexes=ann/other"], False),
        (["allowed=upload", "indexes=ann/own"], False),
        (["projects=demo"], False),
        # Narrowed by its holder: the server has never seen these caveats before.
        (["allowed=pkg_read", "allowed=upload"], False),
        (["indexes=ann/own,ann/other", "indexes=ann/other"], False),
        (["indexes=ann/other", "indexes=ann/own"], False),
        (['{"nbf": 0, "exp": 9999999999}'], True),
        (["[0, 9999999999, 0]"], True),
        (['[1, ["demo"]]'], False),
        (['{"version": 1, "permissions": {"projects": ["demo"]}}'], False),
        (["unknown=1"], False),
        (["nothing"], False),
        ([""], False),
        (["[" * 100_000], False),
    ],
)
def test_a_token_reads_within_its_scope(caveats: list[str], reads: bool) -> None:
    assert within_scope(token(*caveats), "ann/own") is reads


def test_a_password_has_no_scope() -> None:
    assert within_scope(User("ann"), "ann/own")


def test_a_scope_only_gets_narrower() -> None:
    assert Scope.of(["indexes=a/b,c/d", "indexes=c/d,e/f"]) == Scope(indexes=frozenset({"c/d"}))
    assert scope_of(token("indexes=a/b").token) == Scope(indexes=frozenset({"a/b"}))
