"""Expired tokens go when their user makes another one, and a user has few."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("devpi_tokens")

from devpi_tokens import views
from pyramid.httpexceptions import HTTPException

from deployer.server.devpi.tokens import MOST, create


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
