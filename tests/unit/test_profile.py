"""The models alone: frozen, closed to unknown keys, and strict about what a value may look like."""

from __future__ import annotations

import string
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from deployer.profile.models import DATA_CHOICES, Clients, Credentials, Image, Index, Network, Profile, Server, User
from deployer.profile.types import FORMS

MODELS: tuple[type[BaseModel], ...] = (Profile, Network, Image, Server, User, Index, Clients)


@pytest.mark.parametrize("model", MODELS)
def test_models_are_frozen_and_closed(model: type[BaseModel]) -> None:
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"


@pytest.mark.parametrize("model", MODELS)
def test_every_default_is_a_value_that_is_allowed(model: type[BaseModel]) -> None:
    defaults = {
        name: value
        for name, field in model.model_fields.items()
        if (value := field.get_default(call_default_factory=True, validated_data={})) is not PydanticUndefined
    }
    required = {"type": "mirror"} if model is Index else {}
    made = model.model_validate({**required, **{k: v for k, v in defaults.items() if v is not None}})
    assert {name: getattr(made, name) for name in defaults} == defaults


def test_the_default_is_a_mirror_and_a_stage_on_it_for_this_host_only() -> None:
    profile = Profile()
    assert profile.indexes["root/pypi"].type == "mirror"
    assert profile.indexes["root/pypi"].url is None
    assert profile.indexes["root/dev"].bases == ("root/pypi",)
    assert profile.clients.index == "root/dev"
    assert profile.network.bind.is_loopback
    assert not profile.network.expose


def test_a_profile_survives_json() -> None:
    profile = Profile()
    assert Profile.model_validate_json(profile.model_dump_json()) == profile


@pytest.mark.parametrize("kind", get_args(Index.model_fields["type"].annotation))
@pytest.mark.parametrize(
    ("field", "value", "owner"),
    [
        ("url", "https://example.com/", "mirror"),
        ("cache_expiry", 1, "mirror"),
        ("project_list", True, "mirror"),
        ("credentials", {"token": "env:TOKEN"}, "mirror"),
        ("bases", ["root/x"], "stage ordered"),
        ("acl_upload", ["root"], "stage ordered"),
        ("mirror_whitelist", ["*"], "stage"),
        ("accept_confusion", True, "stage"),
        ("owns", ["acme-*"], "mirror stage ordered"),
        ("title", "x", "mirror stage ordered"),
        ("volatile", True, "mirror stage ordered"),
    ],
)
def test_an_index_has_the_fields_of_its_type(kind: str, field: str, value: object, owner: str) -> None:
    needed = {"ordered": {"bases": ["root/x"]}, "mirror": {"url": "https://example.com/"}, "stage": {}}
    given = {"type": kind, **needed[kind], field: value}
    if kind in owner.split():
        assert getattr(Index.model_validate(given), field) is not None
    else:
        with pytest.raises(ValidationError, match=f"an index of type {kind} has no {field}"):
            Index.model_validate(given)


@pytest.mark.parametrize("choice", [*DATA_CHOICES, "/srv/devpi", "~/devpi", "volume:devpi", "volume:a.b-c_1"])
def test_data(choice: str) -> None:
    assert Profile(data=choice).data == choice


@pytest.mark.parametrize(
    "choice",
    [
        *("", "hom", "srv/devpi", "./x", "~root/x", "~", "volume:", "volume:-v", "volume:a/b", "/a\nb", "/a\0b"),
        *("/..", "/srv/missing/../..", "~/..", "~/../other/x", "//", "//proc/x"),
    ],
)
def test_data_that_is_refused(choice: str) -> None:
    with pytest.raises(ValidationError):
        Profile(data=choice)


@pytest.mark.parametrize(
    ("choice", "taken"),
    [("auto", True), ("", True), ("/a/b.pem", True), ("~/b.pem", True), ("b.pem", False), ("./b.pem", False)],
)
def test_a_bundle_is_the_same_one_from_every_directory(choice: str, taken: bool) -> None:
    assert accepts(Network, "ca_file", choice) is taken


def accepts(model: type[BaseModel], field: str, value: object) -> bool:
    try:
        model.model_validate({field: value})
    except ValidationError:
        return False
    return True


# What ends up as a word of an engine's command line, or in an address.
WORDS = [(Image, "ref"), (Image, "base"), (Image, "digest"), (Image, "user"), (Image, "stop_signal")]
WORDS += [(Server, "memory"), (Server, "restart"), (Server, "log_max_size"), (Clients, "index")]


@pytest.mark.parametrize(("model", "field"), WORDS)
@given(st.text(max_size=20))
def test_no_word_can_be_read_as_an_option_or_hold_blanks(model: type[BaseModel], field: str, text: str) -> None:
    if accepts(model, field, text):
        assert not text.startswith("-")
        assert not set(text) - set(string.ascii_letters + string.digits + "._/:@-")


@given(st.text(max_size=20))
def test_a_data_path_inside_can_not_end_a_mount_option(text: str) -> None:
    if accepts(Image, "data_path", "/" + text):
        assert "," not in text
        assert not any(ord(character) < 32 for character in text)


@given(st.text(max_size=12), st.text(max_size=12))
def test_names_of_indexes_need_no_quoting(user: str, name: str) -> None:
    if accepts(Clients, "index", f"{user}/{name}"):
        assert set(user + name) <= set(string.ascii_letters + string.digits + "._-")
        assert user[0] not in ".-"
        assert name[0] not in ".-"


@pytest.mark.parametrize("text", ["1_000", " 7", "7 ", "7.0", "0x10", "0o7", "1e3", "", "٣", "+7", "7\n"])
def test_numbers_are_digits(text: str) -> None:
    assert not accepts(Server, "threads", text)
    assert accepts(Server, "threads", "7")
    assert accepts(Server, "threads", 7)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", -1, "x"])
def test_processors_are_a_finite_number(value: object) -> None:
    assert not accepts(Server, "cpus", value)
    assert accepts(Server, "cpus", "1.5")


def test_every_pattern_has_its_words() -> None:
    """A pattern without words would reach the operator as a regular expression."""

    def patterns(schema: object) -> set[str]:
        if isinstance(schema, dict):
            own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
            named = set(schema.get("patternProperties", {}))
            return own | named | set().union(*map(patterns, schema.values()))
        return set().union(*map(patterns, schema)) if isinstance(schema, list) else set()

    assert patterns(Profile.model_json_schema()) == set(FORMS)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"type": "ordered"}, "needs bases"),
        ({"type": "stage", "only_owned": True}, "only_owned needs the names"),
        ({"type": "stage", "owns": ["acme core"]}, "pattern"),
        ({"type": "stage", "owns": ["[a-z]*"]}, "pattern"),
    ],
)
def test_what_an_ordered_index_needs_is_asked_for(given: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Index.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        {"username": "deploy", "password": "env:TOKEN"},
        {"username": "deploy", "password": "file:/run/secrets/token"},
        {"username": "deploy", "password": "file:~/token"},
        {"token": "command:vault read -field=token secret/pypi"},
        {"token": "keyring:packages.example.com/deploy", "token_as": "user"},
    ],
)
def test_credentials_are_references(given: object) -> None:
    Credentials.model_validate(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"username": "deploy"},
        {"password": "env:TOKEN"},
        {"username": "deploy", "token": "env:TOKEN"},
        {"username": "deploy", "password": "env:A", "token": "env:B"},
        {"username": "a:b", "password": "env:A"},
        {"username": "deploy", "password": "hunter2"},
        {"username": "deploy", "password": "file:relative"},
        {"token": "env:1"},
        {"token": "command: "},
        {"token": "keyring:service"},
    ],
)
def test_no_other_credentials_are_taken(given: object) -> None:
    with pytest.raises(ValidationError):
        Credentials.model_validate(given)
