"""Who may read an index: by password, and by tokens of any scope."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pytest

pytest.importorskip("devpi_tokens")

from pymacaroons import MACAROON_V2, Macaroon

from deployer.server.devpi.reading import Scope, may_read, scope_of


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


@pytest.mark.parametrize("identity", [None, User("bob"), token("allowed=upload"), token("indexes=ann/other")])
@pytest.mark.parametrize("readers", [None, {":ANONYMOUS:", "ann"}])
def test_everybody_reads_an_index_for_everybody(identity: User | None, readers: Collection[str] | None) -> None:
    assert may_read(identity, "ann/own", readers)


@pytest.mark.parametrize(
    ("identity", "readers", "reads"),
    [
        (None, {"ann"}, False),
        (None, {":AUTHENTICATED:"}, False),
        (None, set(), False),
        (User("ann"), {"ann"}, True),
        (User("ann"), set(), False),
        (User("bob"), {"ann"}, False),
        (User("bob"), {":AUTHENTICATED:"}, True),
        (User("root"), {"ann"}, True),
        (User("bob", ["readers"]), {":readers"}, True),
        (User("bob", ["readers"]), {"readers"}, False),
        (User(":AUTHENTICATED:"), {"ann"}, False),
    ],
)
def test_a_protected_index_is_read_by_its_readers_and_by_root(
    identity: User | None, readers: Collection[str], reads: bool
) -> None:
    assert may_read(identity, "ann/own", readers) is reads


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
    assert may_read(token(*caveats), "ann/own", {"ann"}) is reads


def test_a_token_reads_what_its_user_reads() -> None:
    assert not may_read(token("allowed=pkg_read", user="bob"), "ann/own", {"ann"})
    assert not may_read(token("indexes=ann/own", user="bob"), "ann/own", {"ann"})
    assert may_read(token("allowed=pkg_read", user="bob"), "ann/own", {":AUTHENTICATED:"})
    assert not may_read(token("allowed=upload", user="root"), "ann/own", {"ann"})


def test_a_scope_only_gets_narrower() -> None:
    assert Scope.of(["indexes=a/b,c/d", "indexes=c/d,e/f"]) == Scope(indexes=frozenset({"c/d"}))
    assert scope_of(token("indexes=a/b").token) == Scope(indexes=frozenset({"a/b"}))
