"""What ``--set key=value`` puts over a profile."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.errors import ProfileError
from deployer.profile.load import load
from deployer.profile.load.overrides import Override, parse_set
from deployer.profile.strictyaml import parse, parse_value
from tests.profile_problems import problems


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("network.port=0", "network.port", "0"),
        ("server.memory=", "server.memory", ""),
        ("clients.configure=[]", "clients.configure", []),
        (
            "indexes.root/x={type: stage, bases: [root/pypi]}",
            "indexes.root/x",
            {"type": "stage", "bases": ["root/pypi"]},
        ),
        ("data=/srv/a=b", "data", "/srv/a=b"),
        ("indexes.root/pypi=null", "indexes.root/pypi", None),
        ("image.env.A='no'", "image.env.A", "no"),
    ],
)
def test_set(text: str, key: str, value: object) -> None:
    override = parse_set(text)
    assert (override.key, override.value) == (key, value)


@pytest.mark.parametrize("text", ["network.port", "=1", "a=[", "a=&x 1", "a={b: 1, b: 2}"])
def test_set_that_can_not_be_understood(text: str) -> None:
    with pytest.raises(ProfileError):
        parse_set(text)


def test_set_of_an_unknown_key_is_told_as_such() -> None:
    assert problems("default", overrides=[parse_set("network.prt=1")]) == [
        "--set network.prt: network.prt: unknown key (did you mean 'port'?)"
    ]


@pytest.mark.parametrize(
    ("key", "value", "path"),
    [
        ("network.port", 1, ("network", "port")),
        ("indexes.root/pypi.url", "x", ("indexes", "root/pypi", "url")),
        ("indexes.a.team/py.pi.url", "x", ("indexes", "a.team/py.pi", "url")),
        ("indexes.a.team/py.pi", {"type": "stage"}, ("indexes", "a.team/py.pi")),
        ("indexes.a.team/py.pi", None, ("indexes", "a.team/py.pi")),
        ("indexes.root/pypi.url", None, ("indexes", "root/pypi", "url")),
        ("indexes.root/dev.volatle", "yes", ("indexes", "root/dev", "volatle")),
        ("users.j.doe.email", "x", ("users", "j.doe", "email")),
        ("users.j.doe", {}, ("users", "j.doe")),
        ("image.env.A", "1", ("image", "env", "A")),
    ],
)
def test_names_in_keys_may_hold_dots(key: str, value: object, path: tuple[str, ...]) -> None:
    assert Override(key, value, "test").path == path


def test_set_wins_over_the_file_and_is_named_as_the_source_of_what_it_breaks(write: Callable[..., str]) -> None:
    ref = write("users: {dev: }\nindexes: {root/dev: {bases: [root/pypi]}}\n")
    assert load(ref).profile.users["dev"].email == ""
    (told,) = problems(ref, overrides=[parse_set("indexes.root/dev.bases=[root/pipy]")])
    assert told.startswith("--set indexes.root/dev.bases: indexes.root/dev.bases: unknown index 'root/pipy'")


def test_the_parent_is_not_chosen_by_set() -> None:
    assert problems("default", overrides=[parse_set("extends=vpn")]) == [
        "--set extends: extends: unknown key (choose the profile with --profile)"
    ]


@given(st.text(max_size=60))
def test_any_set_is_an_override_or_a_problem(text: str) -> None:
    try:
        override = parse_set(text)
    except ProfileError:
        return
    try:
        load("default", overrides=[override])
    except ProfileError as error:
        assert error.message


words = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30)


@given(words)
def test_a_quoted_text_stays_what_it_is(text: str) -> None:
    assert parse_value(json.dumps(text, ensure_ascii=False), name="x") == text
    if "\ufeff" not in text and not set(text) & set("\u0085\u2028\u2029\x7f"):
        quoted = text.replace("'", "''")
        assert parse_value(f"'{quoted}'", name="x") == text


@given(st.from_regex(r"[A-Za-z0-9_.+][A-Za-z0-9_.+:]{0,7}[A-Za-z0-9_.+]", fullmatch=True))
def test_a_plain_word_stays_what_it_is(word: str) -> None:
    value = parse(f"a: {word}\n".encode(), name="x").tree["a"]
    assert value == (None if word in ("null", "Null", "NULL") else word)
