"""What reaches a person's terminal: the words, and nothing that the terminal would obey."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployer.errors import NotReadyError
from deployer.secrets import Secret
from deployer.ui.output import UI, Result, strip_controls
from deployer.ui.table import columns

HOSTILE = "\x1b[2J\x1b[1;31mred\x1b[0m\x1b]0;title\x07\x1b]52;c;bHM=\x1b\\\x9b5n\x08\rpath\tend"
TAMED = "red5npath\tend"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> UI:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    return UI(out=Terminal(), err=Terminal())


def test_the_words_of_others_are_only_shown(seen: UI) -> None:
    seen.step("data", HOSTILE)
    seen.note(HOSTILE)
    seen.warn(HOSTILE)
    seen.fail("up", NotReadyError(HOSTILE, hint=HOSTILE, details=(HOSTILE,)))
    told = seen.err.getvalue()  # type: ignore[attr-defined]
    assert told.count(TAMED) == 6
    assert strip_controls(told) == told


def test_a_result_is_tamed_for_a_person_and_whole_for_a_program(seen: UI) -> None:
    piped = UI(out=io.StringIO(), err=io.StringIO())
    for ui in (seen, piped):
        ui.line(HOSTILE)
        ui.finish("index show", Result(text=HOSTILE))
    assert seen.out.getvalue() == f"{TAMED}\n" * 2  # type: ignore[attr-defined]
    assert piped.out.getvalue() == f"{HOSTILE}\n" * 2  # type: ignore[attr-defined]


def test_our_own_colours_stay(seen: UI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    seen.step("data", "text")
    assert seen.err.getvalue() == "\x1b[1mdata      \x1b[0mtext\n"  # type: ignore[attr-defined]


def test_a_secret_that_is_taken_apart_by_colours_is_blanked(seen: UI) -> None:
    secret = Secret("canary-apart")
    first, last = secret.reveal()[:6], secret.reveal()[6:]
    seen.note(f"{first}\x1b[0m{last}")
    assert seen.err.getvalue().strip() == "****"  # type: ignore[attr-defined]


@given(st.text(max_size=40) | st.text(alphabet="\x1b[]0;\x07\\mé\n", max_size=20))
def test_what_was_tamed_is_tame(text: str) -> None:
    once = strip_controls(text)
    assert strip_controls(once) == once
    assert not any((ord(char) < 32 and char not in "\t\n") or 127 <= ord(char) < 160 for char in once)


def test_the_line_that_is_the_cause_is_not_said_again(seen: UI) -> None:
    seen.fail("up", NotReadyError("no build: no space", details=("step 1", "no space")))
    assert seen.err.getvalue().splitlines()[1:] == [f"{'':10}step 1"]  # type: ignore[attr-defined]


def test_a_long_cell_never_touches_the_next_column() -> None:
    rows = [("root/pypi", "constrained-mirror", "https://packages.example.com"), ("a/b", "stage", "")]
    assert columns(rows).splitlines() == [
        "root/pypi  constrained-mirror  https://packages.example.com",
        "a/b        stage",
    ]
    assert columns([]) == ""
