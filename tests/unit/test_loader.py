"""Reading and merging profiles: values mean what was written, and a name means one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployer.errors import ProfileError
from deployer.profile.load import load
from deployer.profile.load.files import available
from deployer.profile.load.layers import flatten, merge
from deployer.profile.load.overrides import Override
from deployer.profile.models import Profile
from deployer.profile.strictyaml import MAX_BYTES

# Merging


def test_sources_say_who_gave_each_value(write: Callable[..., str]) -> None:
    ref = write("extends: vpn\nclients:\n  timeout: 7\n")
    loaded = load(ref, overrides=[Override("network.port", 0, "--port")])
    assert (loaded.profile.clients.timeout, loaded.profile.network.port) == (7, 0)
    assert loaded.profile.network.mode == "host"
    assert loaded.sources["clients.timeout"] == f"{ref}:3"
    assert loaded.sources["network.port"] == "--port"
    assert loaded.sources["network.mode"].startswith("vpn.yaml:")


def test_a_users_own_default_may_extend_the_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("extends: default\ndescription: mine\nnetwork: {port: 4000}\n")
    loaded = load("default", user_dir=tmp_path)
    assert loaded.profile.network.port == 4000
    assert len(loaded.files) == 2
    assert {p.description for p in available(tmp_path) if p.name == "default"} == {"mine"}


def test_an_index_is_added_changed_retyped_and_taken_away(write: Callable[..., str]) -> None:
    ref = write("indexes:\n  root/dev: {volatile: true}\n  root/x: {type: stage, bases: [root/dev]}\n")
    indexes = load(ref).profile.indexes
    assert indexes["root/dev"].volatile is True
    assert indexes["root/dev"].bases == ("root/pypi",)
    assert set(indexes) == {"root/pypi", "root/dev", "root/x"}
    gone = load(write("indexes:\n  root/pypi: null\n  root/dev: {bases: []}\n")).profile.indexes
    assert set(gone) == {"root/dev"}
    retyped = load(write("indexes:\n  root/dev: {type: mirror, url: 'https://example.com/'}\n")).profile.indexes
    assert retyped["root/dev"].bases is None


def test_scalars_mean_what_their_field_says(write: Callable[..., str]) -> None:
    profile = load(
        write("server: {version: 6, keep_deleted: no, restart: no}\nimage: {env: {A: 1.10, B: 22:30}}\n")
    ).profile
    assert (profile.server.version, profile.server.keep_deleted, profile.server.restart) == ("6", False, "no")
    assert profile.image.env == {"A": "1.10", "B": "22:30"}


trees = st.recursive(
    st.text(max_size=5) | st.none(),
    lambda children: st.dictionaries(st.sampled_from("abcdef"), children, max_size=4),
    max_leaves=12,
)
mappings = st.dictionaries(st.sampled_from("abcdef"), trees, max_size=5)


@given(mappings, mappings)
def test_merging_the_same_again_changes_nothing(first, second) -> None:  # type: ignore[no-untyped-def]
    once: dict[str, object] = {}
    merge(once, first)  # type: ignore[arg-type]
    merge(once, second)  # type: ignore[arg-type]
    again = json.loads(json.dumps(once))
    merge(again, second)
    assert again == once


@given(mappings)
def test_merging_copies_and_nothing_else(tree) -> None:  # type: ignore[no-untyped-def]
    into: dict[str, object] = {}
    merge(into, tree)  # type: ignore[arg-type]
    assert into == tree


# A user's own profiles


def test_what_is_shipped_builds_on_what_is_shipped(tmp_path: Path) -> None:
    (tmp_path / "default.yaml").write_text("extends: vpn\nnetwork: {port: 4000}\n")
    own = load("default", user_dir=tmp_path)
    assert (own.profile.network.mode, own.profile.network.port) == ("host", 4000)
    assert load("ci", user_dir=tmp_path).profile.network.mode == "auto"


def test_own_profiles_are_where_the_variable_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEPLOYER_CONFIG_DIR", str(tmp_path))
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "team.yml").write_text("extends: default\ndescription: ours\nserver: {threads: 3}\n")
    assert load("team").profile.server.threads == 3
    assert {p.name: p.description for p in available()}["team"] == "ours"


def test_what_is_no_profile_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "directory.yaml").mkdir()
    (tmp_path / "gone.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "-option.yaml").write_text("engine: auto\n")
    (tmp_path / "notes.txt").write_text("engine: auto\n")
    (tmp_path / "broken.yaml").write_text("a: [")
    (tmp_path / "big.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    found = {p.name: p.description for p in available(tmp_path)}
    assert found.keys() - {p.name for p in available(tmp_path / "none")} == {"broken", "big"}
    assert (found["broken"], found["big"]) == ("", "")


def test_a_path_is_relative_to_the_file_that_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "base.yaml").write_text("extends: default\nserver:\n  threads: 5\n")
    (tmp_path / "a" / "b" / "team.yaml").write_text("extends: ../base.yaml\nserver: {pids: 9}\n")
    monkeypatch.chdir(tmp_path)
    loaded = load("a/b/team.yaml")
    assert (loaded.name, loaded.profile.server.threads, loaded.profile.server.pids) == ("team", 5, 9)
    assert [path.name for path in loaded.files] == ["team.yaml", "base.yaml", "default.yaml"]
    assert loaded.sources["server.threads"] == f"{tmp_path.resolve()}/a/base.yaml:3"
    assert loaded.sources["server.pids"] == "a/b/team.yaml:2"
    assert "server.web" not in loaded.sources


def test_an_empty_section_says_nothing(write: Callable[..., str]) -> None:
    ref = write("extends: vpn\nnetwork:\n  # mode: bridge\nusers:\nindexes:\nclients: ~\n")
    assert load(ref).profile == load("vpn").profile


@given(st.text(st.characters(blacklist_characters="/"), max_size=30) | st.text(max_size=30))
def test_any_reference_is_a_profile_or_a_problem(ref: str) -> None:
    try:
        assert load(ref, user_dir=Path("/nonexistent")).files
    except ProfileError as error:
        assert error.message


keys = st.sampled_from(
    [*Profile.model_fields, "root/dev", "root/pypi", "dev", "port", "bases", "type", "extends", "env"]
)
leaves = st.none() | st.integers() | st.booleans() | st.sampled_from(["root/dev", "mirror", "stage", "default", "auto"])
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4), max_leaves=15
)


@given(st.dictionaries(keys, anything, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_tree_is_a_profile_or_a_problem_with_its_place(tmp_path: Path, tree: dict[str, object]) -> None:
    path = tmp_path / "any.yaml"
    path.write_text(yaml.safe_dump(tree))
    try:
        loaded = load(str(path))
    except ProfileError as error:
        assert str(path) in "".join((error.message, *error.details))
    else:
        assert set(loaded.sources) <= set(flatten(loaded.profile.model_dump(mode="json")))
