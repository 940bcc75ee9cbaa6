"""A password that is read: the first line as it was written, or a line of cause."""

from __future__ import annotations

import io
import sys

import pytest

from deployer.errors import UsageError
from deployer.ui.prompts import read_password


def give(monkeypatch: pytest.MonkeyPatch, content: bytes, *, errors: str = "strict") -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", errors=errors))


@pytest.mark.parametrize(
    ("content", "password"),
    [(b"one\ntwo\n", "one"), (b"one\r\n", "one"), (b" a b ", " a b "), ("päß\n".encode(), "päß")],
)
def test_the_first_line_is_the_password(monkeypatch: pytest.MonkeyPatch, content: bytes, password: str) -> None:
    give(monkeypatch, content)
    assert read_password("dev").reveal() == password


@pytest.mark.parametrize("content", [b"", b"\n", b"\ntwo\n"])
def test_none_is_told(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    give(monkeypatch, content)
    with pytest.raises(UsageError, match="is empty"):
        read_password("dev")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # of a UTF-8 locale, and of LANG=C
def test_what_is_not_utf8_is_told_and_not_repeated(monkeypatch: pytest.MonkeyPatch, errors: str) -> None:
    give(monkeypatch, b"canary-\xe9-password\n", errors=errors)
    with pytest.raises(UsageError, match="not UTF-8") as caught:
        read_password("dev")
    assert "canary" not in caught.value.message + caught.value.hint
    assert caught.value.__suppress_context__
