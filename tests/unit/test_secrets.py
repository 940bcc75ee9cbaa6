"""Secrets don't show themselves, and what is printed holds none, whoever wrote it."""

from __future__ import annotations

import copy
import json
import re
import traceback

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deployer import secrets
from deployer.secrets import BLANK, Secret, generate, mask, mask_url

CANARY = "canary-c0ffee-7261"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests made secrets of is no matter here, nor the other way round."""
    monkeypatch.setattr(secrets, "_known", set())


@pytest.mark.parametrize(
    "show", [str, repr, "{}".format, "{!r:>40}".format, "%s".__mod__, lambda it: repr([it]), lambda it: f"{it!s}"]
)
def test_no_way_to_print_it_shows_it(show: object) -> None:
    assert callable(show)
    shown = show(Secret(CANARY))
    assert CANARY not in shown
    assert BLANK in shown


def test_only_who_asks_gets_it() -> None:
    secret = Secret(CANARY)
    assert secret.reveal() == CANARY
    assert copy.copy(secret).reveal() == CANARY
    with pytest.raises(TypeError):
        json.dumps({"password": secret})
    with pytest.raises(AttributeError):
        secret.value = "another"  # type: ignore[attr-defined]


def test_a_trace_does_not_show_it() -> None:
    def fails(secret: Secret) -> None:
        raise ValueError(f"wrong: {secret}")

    try:
        fails(Secret(CANARY))
    except ValueError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert CANARY not in "".join(line for line in told.format() if "CANARY" not in line)
    assert f"secret = Secret({BLANK})" in "".join(told.format())


def test_equal_is_what_has_the_same_value() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("ä"), Secret("ä"), Secret("a")}) == 2
    assert Secret("x") and not Secret("")


def test_a_fresh_one_cannot_be_guessed() -> None:
    made = {generate().reveal() for _ in range(1000)}
    assert not [secret for secret in made if secret.startswith("-")]  # which is an option to others
    assert len(made) == 1000
    # 256 bits are 43 characters of base64; a password on a command line or in a URL needs no quoting.
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", value) for value in made)


# What is printed


def test_what_is_known_is_blanked_wherever_it_stands() -> None:
    Secret(CANARY)
    assert mask(f"<{CANARY}>{CANARY}\n{CANARY[:-1]}") == f"<{BLANK}>{BLANK}\n{CANARY[:-1]}"


def test_one_that_holds_another_leaves_no_rest() -> None:
    Secret(CANARY)
    Secret(f"{CANARY}-and-more")
    assert mask(f"{CANARY}-and-more") == BLANK


@pytest.mark.parametrize("short", ["", "a", "devpi"])
def test_what_is_too_short_to_be_one_blanks_nothing(short: str) -> None:
    Secret(short)
    assert mask("a devpi says that all is well") == "a devpi says that all is well"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("https://me:pw@packages.example.com/simple/", f"https://{BLANK}@packages.example.com/simple/"),
        ("https://token@packages.example.com/", f"https://{BLANK}@packages.example.com/"),
        ("https://me:p@ss:w/rd@example.com/", f"https://{BLANK}@ss:w/rd@example.com/"),
        ("git+ssh://git:pw@example.com/a.git", f"git+ssh://{BLANK}@example.com/a.git"),
        ("a https://a:b@c/ and 'http://d:e@f/'", f"a https://{BLANK}@c/ and 'http://{BLANK}@f/'"),
        ("https://example.com/simple/", "https://example.com/simple/"),
        ("https://example.com/@scope/name", "https://example.com/@scope/name"),
        ("write to me@example.com", "write to me@example.com"),
        ("://a:b@c", "://a:b@c"),
    ],
)
def test_addresses_lose_their_credentials(text: str, masked: str) -> None:
    assert mask_url(text) == masked


# A user name and a password as RFC 3986 lets them stand in an address.
USERINFO = st.text("abcXYZ019-._~!$&()*+,;=%", min_size=6, max_size=30)


@given(user=USERINFO, password=USERINFO, before=st.text(max_size=20), after=st.text(max_size=20))
def test_no_password_of_an_address_is_left(user: str, password: str, before: str, after: str) -> None:
    assume(password not in user + before + after)
    assert f":{password}@" not in mask_url(f"{before} https://{user}:{password}@packages.example.com/{after}")


@given(value=st.text(min_size=6, max_size=40), before=st.text(max_size=40), after=st.text(max_size=40))
def test_no_secret_is_left(value: str, before: str, after: str) -> None:
    assume(value not in BLANK + "*" and "*" not in value and "://" not in value)
    Secret(value)
    try:
        masked = mask(f"{before}{value}{after}")
        assert value not in masked
        assert mask(masked) == masked
    finally:
        secrets._known.clear()


def test_a_text_of_a_megabyte_is_no_trouble() -> None:
    """An address is looked for in linear time, whatever the text."""
    for text in ("a" * 1_000_000, "a://" * 250_000, "://" * 300_000, "+" * 1_000_000):
        assert mask_url(text) == text
