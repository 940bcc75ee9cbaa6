"""Expired tokens go when their user makes another one, a user has few, and each can be judged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("devpi_tokens")

from devpi_tokens import server, views
from pymacaroons import MACAROON_V2, Macaroon
from pyramid.httpexceptions import HTTPException

from deployer.server.devpi.tokens import MOST, create, devpiserver_get_identity


@pytest.fixture(autouse=True)
def _made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "user_token_create", lambda context, request: "made")


def user(*restrictions: str) -> tuple[Any, dict[str, Any]]:
    """A context with devpi's user, and what is stored."""
    stored = {"tokens": {str(number): {"key": "k", "restrictions": [one]} for number, one in enumerate(restrictions)}}

    @contextmanager
    def update() -> Iterator[dict[str, Any]]:
        yield stored

    found = SimpleNamespace(name="ann", get=lambda **_: stored, key=SimpleNamespace(update=update))
    return SimpleNamespace(user=found), stored


def test_expired_tokens_go() -> None:
    soon = int(time.time()) + 3600
    context, stored = user("expires=1", f"expires={soon}", "expires=never", "allowed=upload")
    assert create(context, None) == "made"
    assert sorted(stored["tokens"]) == ["1", "2", "3"]


def test_a_user_has_few() -> None:
    context, stored = user(*(["expires=never"] * MOST))
    with pytest.raises(HTTPException) as caught:
        create(context, None)
    assert caught.value.status_code == 403
    context, stored = user("expires=1", *(["expires=never"] * (MOST - 1)))
    assert create(context, None) == "made"
    assert len(stored["tokens"]) == MOST - 1


@pytest.mark.parametrize(
    ("caveat", "known"),
    [
        ("allowed=pkg_read", True),
        ("indexes=ann/own", True),
        ('{"nbf": 0, "exp": 9999999999}', False),
        ('[1, ["a=b"]]', False),
        ("unknown=1", False),
    ],
)
def test_a_token_with_a_limit_that_is_unknown_is_refused(
    caveat: str, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """devpi-tokens verifies these forms, and fails when it lists them: HTTP 500."""
    made = Macaroon(identifier="ann-x", key="k", version=MACAROON_V2)
    made.add_first_party_caveat(caveat)
    asked = []

    def identity(request: Any, credentials: Any) -> Any:
        asked.append(credentials)
        return server.TokenIdentity("ann", f"devpi-{made.serialize()}")

    monkeypatch.setattr(server, "devpiserver_get_identity", identity)
    if known:
        assert devpiserver_get_identity(None, ("__token__", "x")).username == "ann"
    else:
        with pytest.raises(HTTPException) as caught:
            devpiserver_get_identity(None, ("__token__", "x"))
        assert caught.value.status_code == 403
    assert asked == [("", "x")]
