"""From a profile to a server's words and back, for every version: all of it pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deployer.devpi.change import Kind
from deployer.devpi.declared import KEYS, parse_settings, wanted
from deployer.devpi.difference import changes, prune
from deployer.devpi.export import exported, hidden_credentials
from deployer.devpi.fields import CODECS, DEVPI_6, DEVPI_7, INDEX_FIELDS, IndexCodec, codec_of
from deployer.devpi.topology import Node, Topology
from deployer.errors import ProfileError, UsageError
from deployer.plan import members_named
from deployer.profile.load import load
from deployer.profile.models import Index, User

UPSTREAM = "https://packages.example.com/simple/"
USERS = {"dev": User(email="dev@example.com", title="Developers", description="All of them", custom_data="x: 1")}
INDEXES = {
    "root/pypi": Index(
        type="mirror",
        title="All that is public",
        description="a mirror",
        custom_data="{}",
        volatile=False,
        url=UPSTREAM,
        cache_expiry=60,
        project_list=False,
        external_urls=False,
        web_url="https://packages.example.com/project/{name}/",
    ),
    "root/dev": Index(
        type="stage",
        bases=("root/pypi",),
        volatile=False,
        acl_upload=("dev", ":AUTHENTICATED:"),
        acl_toxresult_upload=("dev",),
        mirror_whitelist=("*",),
        mirror_whitelist_inheritance="union",
    ),
    "root/private": Index(
        type="mirror", url="https://private.example.com/", volatile=True, owns=("acme-*", "shop"), only_owned=True
    ),
    "root/both": Index(type="ordered", bases=("root/private", "root/pypi"), volatile=False, acl_upload=("dev",)),
    "dev/work": Index(type="stage", bases=("root/dev",), mirror_whitelist=(), title=""),
}


@pytest.mark.parametrize(
    ("kind", "word", "cause"),
    [
        ("mirror", "url=example", "url: expected an address that starts with http:// or https://"),
        ("mirror", "cache_expiry=soon", "cache_expiry: expected a whole number"),
        ("mirror", "min_age=soon", "min_age: expected a time with a unit"),
        ("mirror", "deny=a b", "deny[0]: expected a requirement"),
        ("mirror", "before=soon", "before: expected a date like 2026-01-01"),
        ("stage", "volatile=maybe", "volatile: expected true or false, not 'maybe'"),
        ("stage", "bases=root", "bases[0]: expected user/name"),
    ],
)
def test_a_setting_that_is_wrong_is_told_in_the_words_of_a_profile(kind: str, word: str, cause: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings([word], kind=kind)
    assert caught.value.message.startswith(cause)
    assert caught.value.hint


def served(goal: Topology, codec: IndexCodec) -> Topology:
    """``goal`` as a server of that codec would tell it after it was made."""
    raw: dict[str, dict[str, object]] = {
        name: {"username": name, **node.fields, "indexes": {}} for name, node in {"root": Node(), **goal.users}.items()
    }
    for name, node in goal.fit(codec).indexes.items():
        user, _, index = name.partition("/")
        made = raw[user]["indexes"]
        assert isinstance(made, dict)
        made[index] = codec.encode({**node.initial, **node.fields})
    return Topology.parse(raw)


@pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: str(codec.major))
def test_what_was_made_is_as_wanted(codec: IndexCodec) -> None:
    goal = wanted(USERS, INDEXES, default_mirror_url="")
    assert changes(served(goal, codec), goal.fit(codec)) == ()


@pytest.mark.parametrize("codec", CODECS.values(), ids=lambda codec: str(codec.major))
def test_what_is_exported_loads_to_the_same(codec: IndexCodec, tmp_path: Path) -> None:
    running = served(wanted(USERS, INDEXES, default_mirror_url=""), codec)
    path = tmp_path / "running.yaml"
    path.write_text(yaml.safe_dump({"extends": "default", **exported(running)}, sort_keys=False))
    profile = load(str(path)).profile
    again = wanted(profile.users, profile.indexes, default_mirror_url="").fit(codec)
    assert changes(running, again) == ()
    assert {name: node.fields for name, node in again.indexes.items()} == {
        name: node.fields for name, node in running.indexes.items()
    }
    assert again.users == {name: node for name, node in running.users.items() if name != "root"}


def mirror(url: str, **more: Any) -> Index:
    return Index(type="mirror", url=f"https://{url}.example.com/", **more)


LAYERS = {
    "root/private": mirror("private", owns=("acme-*", "shop"), only_owned=True),
    "root/other": mirror("other", owns=("other-*",)),
    "root/pypi": mirror("public"),
    "team/made": Index(type="stage", bases=("root/private",), owns=("made",)),
    "team/inner": Index(type="ordered", bases=("root/private", "root/other")),
    "team/main": Index(type="ordered", bases=("team/made", "team/inner", "root/pypi"), owns=("main-*",)),
    "team/again": Index(type="ordered", bases=("team/inner", "root/private", "root/pypi")),
}


@pytest.mark.parametrize("names", [list(LAYERS), list(reversed(LAYERS)), sorted(LAYERS)])
def test_owners_are_told_where_they_own_and_not_once_more_above(names: list[str], tmp_path: Path) -> None:
    """An index that were told to own what its base owns would serve it itself, from nothing."""
    running = served(wanted({}, {name: LAYERS[name] for name in names}, default_mirror_url=""), DEVPI_6)
    path = tmp_path / "running.yaml"
    path.write_text(yaml.safe_dump({"extends": "default", **exported(running)}))
    profile = load(str(path)).profile
    assert changes(running, wanted(profile.users, profile.indexes, default_mirror_url="")) == ()
    told = {name: (index.owns, index.only_owned) for name, index in profile.indexes.items() if index.owns}
    assert told == {name: (index.owns, index.only_owned) for name, index in LAYERS.items() if index.owns}


def test_what_no_server_knows_is_taken_from_what_was_applied() -> None:
    running = served(wanted({}, LAYERS, default_mirror_url=""), DEVPI_6)
    secret = {"username": "bearer", "password": "env:TOKEN", "token": None, "token_as": "bearer"}
    token = {"username": "", "password": None, "token": "file:/run/token", "token_as": "user"}
    meant = {
        "indexes": {
            "root/private": {"url": "https://private.example.com", "credentials": secret},
            "root/other": {"url": "https://other.example.com/", "credentials": token},
            "root/pypi": {"url": "https://elsewhere.example.com/", "credentials": token},
            "team/made": {"accept_confusion": True},
            "team/gone": {"accept_confusion": True},
        },
        "clients": {"index": "team/main"},
    }
    told = exported(running, meant=meant)
    assert told["clients"] == {"index": "team/main"}
    found = {name: said["credentials"] for name, said in told["indexes"].items() if said and "credentials" in said}
    assert found == {
        "root/private": {"username": "bearer", "password": "env:TOKEN"},
        "root/other": {"token": "file:/run/token", "token_as": "user"},
    }
    assert told["indexes"]["team/made"]["accept_confusion"] is True
    # One that is there has to be named, and this is the first on which no other builds.
    for nothing in ({}, {"clients": {"index": "team/gone"}}):
        assert exported(running, meant=nothing)["clients"] == {"index": "team/again"}
    usual = Topology(indexes={**running.indexes, "root/dev": Node(fields={"type": "stage"})})
    assert "clients" not in exported(usual)


def test_an_export_holds_no_credentials() -> None:
    running = Topology(
        users={"root": Node()},
        indexes={"root/in": Node(fields={"type": "mirror", "mirror_url": "https://u:canary-1@packages.example.com/"})},
    )
    assert exported(running)["indexes"]["root/in"]["url"] == "https://packages.example.com/"
    assert hidden_credentials(running) == ("root/in",)


def test_an_index_of_a_type_that_no_profile_knows_is_left_out() -> None:
    running = Topology(indexes={"root/odd": Node(fields={"type": "odd"}), "root/none": Node()})
    assert exported(running)["indexes"] == {"root/pypi": None, "root/dev": None}


def test_version_7_spells_everything_otherwise() -> None:
    fields = wanted({}, INDEXES, default_mirror_url="").indexes
    assert DEVPI_7.encode(fields["root/pypi"].fields)["remote_url"] == UPSTREAM
    assert DEVPI_7.encode(fields["root/pypi"].fields)["type"] == "remote"
    told = DEVPI_7.encode(fields["root/dev"].fields)
    assert told["project_inheritance_rules"] == ["allow all"]
    assert told["trust_inheritance_rules_from"] == "type:not remote"
    assert DEVPI_7.encode(fields["dev/work"].fields)["project_inheritance_rules"] == [
        "block type:remote if local_exists"
    ]
    assert not any("mirror" in name for node in fields.values() for name in DEVPI_7.encode(node.fields))


def test_what_version_7_has_no_word_for_is_told_or_left_out() -> None:
    names = {"root/dev": Index(type="stage", mirror_whitelist=("one",))}
    goal = wanted({}, names, default_mirror_url="")
    assert goal.fit(DEVPI_6) == goal
    with pytest.raises(ProfileError, match=r"root/dev: devpi-server 7 has no mirror_whitelist \[one\], only \[\] or"):
        goal.fit(DEVPI_7)
    mirror = {"root/pypi": Index(type="mirror", url=UPSTREAM, core_metadata=True, ignore_serial=True)}
    node = wanted({}, mirror, default_mirror_url="").fit(DEVPI_7).indexes["root/pypi"]
    assert set(node.fields) == {"type", "mirror_url"}


@pytest.mark.parametrize(
    ("version", "major"), [("6.20.3", 6), ("7.0.0b4", 7), ("7", 7), ("5.5.1", None), ("8.0", None), ("", None)]
)
def test_the_version_tells_the_dialect(version: str, major: int | None) -> None:
    found = codec_of(version)
    assert (found.major if found else None) == major


def test_every_key_of_a_type_owns_a_known_field() -> None:
    own = {"type", *(name for keys in KEYS.values() for name in keys.values())}
    # What an ordered index says of its bases, each base says of itself.
    assert own | {"owns", "only_owned"} == set(INDEX_FIELDS)


# Groups


def test_a_group_of_rights_becomes_its_members() -> None:
    indexes = {"root/dev": Index(type="stage", acl_upload=("@makers", "ci", "root"))}
    named = members_named(indexes, {"makers": ("dev", "ci")})["root/dev"]
    assert (named.acl_upload, named.acl_toxresult_upload) == (("dev", "ci", "root"), None)


def test_groups_that_nobody_declared_are_told_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "team.yaml"
    path.write_text(
        "extends: default\nusers: {dev: {}}\ngroups:\n  makers: [dev, dve]\n"
        "indexes:\n  root/dev: {type: stage, acl_upload: ['@maker']}\n"
    )
    with pytest.raises(ProfileError) as caught:
        load(str(path))
    lines = "\n".join((caught.value.message, *caught.value.details))
    assert "team.yaml:4: groups.makers: unknown user 'dve'" in lines
    assert "team.yaml:6: indexes.root/dev.acl_upload: unknown group '@maker'" in lines
    assert "did you mean '@makers'?" in lines


# What the profile does not name


def stage(*bases: str) -> Node:
    return Node(fields={"type": "stage", "bases": bases})


def told(current: Topology, goal: Topology, *, empty: set[str]) -> list[str]:
    return [change.text for change in prune(current, goal, empty=empty)]


def test_only_what_is_empty_and_no_base_goes() -> None:
    users = {name: Node() for name in ("root", "dev", "ops")}
    current = Topology(
        users=users,
        indexes={
            "dev/top": stage("dev/low"),
            "dev/low": stage(),
            "ops/full": stage("ops/base"),
            "ops/base": stage(),
            "root/dev": stage("root/old"),
            "root/old": stage(),
        },
    )
    goal = Topology(users={}, indexes={"root/dev": Node(fields={"type": "stage"})})
    assert told(current, goal, empty=set(current.indexes) - {"ops/full"}) == [
        "remove index dev/top",
        "remove index dev/low",
        "remove user dev",
        "keep user ops, which the profile does not name: owns an index",
        "keep index ops/base, which the profile does not name: a base of ops/full",
        "keep index ops/full, which the profile does not name: not empty (deployer index delete ops/full)",
        "keep index root/old, which the profile does not name: a base of root/dev",
    ]


def test_a_base_that_the_profile_takes_away_is_none() -> None:
    current = Topology(users={"root": Node()}, indexes={"root/dev": stage("root/old"), "root/old": stage()})
    goal = Topology(indexes={"root/dev": stage()})
    assert [change.kind for change in prune(current, goal, empty={"root/old"})] == [Kind.REMOVE_INDEX]


def test_a_circle_on_the_server_is_kept() -> None:
    current = Topology(users={"root": Node()}, indexes={"root/a": stage("root/b"), "root/b": stage("root/a")})
    assert {change.kind for change in prune(current, Topology(), empty={"root/a", "root/b"})} == {Kind.KEPT}
