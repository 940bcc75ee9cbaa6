"""The list of tests that may need a second try: short-lived, true to the tree, and what it lets pass."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest

from tests import quarantine
from tests.quarantine import EXPIRES, Entry

ROOT = Path(__file__).parents[2]
TODAY = date(2030, 3, 1)
HERE = "tests/unit/test_quarantine.py"


def entry(test: str, since: date = TODAY) -> Entry:
    return Entry(id=test, reason="a race", since=since)


def test_no_entry_has_expired() -> None:
    assert quarantine.expired(quarantine.read(), date.today()) == []


def test_every_entry_names_a_test_and_a_reason() -> None:
    entries = quarantine.read()
    assert quarantine.unknown(entries, ROOT) == []
    assert [entry.id for entry in entries if not entry.reason.strip()] == []


@pytest.mark.parametrize(
    ("since", "old"), [(TODAY, False), (TODAY - EXPIRES, False), (TODAY - EXPIRES - timedelta(1), True)]
)
def test_an_entry_expires(since: date, old: bool) -> None:
    assert bool(quarantine.expired([entry("a", since)], TODAY)) is old


def test_an_entry_of_a_day_to_come_is_no_longer_life() -> None:
    assert quarantine.expired([entry("a", TODAY + timedelta(1))], TODAY) == ["a"]


@pytest.mark.parametrize(
    ("test", "known"),
    [
        (f"{HERE}::test_an_entry_expires", True),
        (f"{HERE}::test_an_entry_expires[a-b]", True),
        (f"{HERE}::test_an_entry", False),
        (HERE, False),
        ("tests/unit/test_gone.py::test_an_entry_expires", False),
    ],
)
def test_an_entry_is_of_a_test_that_there_is(test: str, known: bool) -> None:
    assert (quarantine.unknown([entry(test)], ROOT) == []) is known


def test_an_entry_has_a_reason_and_a_date(tmp_path: Path) -> None:
    file = tmp_path / "quarantine.toml"
    file.write_text('[[test]]\nid = "a"\nsince = 2030-01-31\n')
    with pytest.raises(TypeError, match="reason"):
        quarantine.read(file)
    file.write_text('[[test]]\nid = "a"\nreason = "b"\nsince = 2030-01-31\n')
    assert quarantine.read(file) == (Entry(id="a", reason="b", since=date(2030, 1, 31)),)


@pytest.mark.parametrize(
    ("first", "tries", "code", "word"),
    [
        (["x::a"], [[], []], 0, "QUARANTINED"),
        (["x::a[docker]"], [[], []], 0, "QUARANTINED"),
        (["x::a"], [["x::a"], []], 0, "QUARANTINED"),
        (["x::a"], [["x::a"], ["x::a"]], 1, "FAILED"),
        (["x::b"], [[], []], 0, "FLAKY"),
        (["x::ab"], [[], []], 0, "FLAKY"),
        (["x::b"], [[], ["x::b"]], 1, "FAILED"),
        (["x"], [["x"]], 1, "FAILED"),
        ([], [["x::c"], []], 1, "FAILED"),
        ([], [[]], 0, ""),
    ],
)
def test_what_passes(first: list[str], tries: list[list[str]], code: int, word: str) -> None:
    found, lines = quarantine.verdict(first, tries, [entry("x::a")])
    assert found == code
    assert [line.partition(" ")[0] for line in lines] == [word] * bool(word)


def test_few_are_tolerated_and_those_that_are_listed_do_not_count() -> None:
    some = [f"{number}::{test}" for number in range(quarantine.TOLERATED) for test in "abc"]
    assert quarantine.verdict([*some, "x::a"], [[]], [entry("x::a")])[0] == 0
    code, lines = quarantine.verdict([*some, "x::b"], [[]], [])
    assert (code, lines[-1]) == (1, "TOO MANY files with flaky tests: 3, and 2 are tolerated")


def test_the_command_reads_what_pytest_writes(tmp_path: Path) -> None:
    """A test that fails at its first run only, run as ``.ci/run`` does it."""
    (tmp_path / "test_it.py").write_text(
        "from pathlib import Path\ndef test_once():\n    there = Path('ran').exists()\n    Path('ran').touch()\n"
        "    assert there\ndef test_well():\n    pass\n"
    )
    cache = tmp_path / ".pytest_cache/v/cache/lastfailed"
    words = [sys.executable, "-m", "pytest", "-q", "--rootdir", str(tmp_path)]
    assert subprocess.run(words, cwd=tmp_path, capture_output=True, check=False).returncode == 1
    assert json.loads(cache.read_text()) == {"test_it.py::test_once": True}
    (tmp_path / "first").write_bytes(cache.read_bytes())
    again = subprocess.run(
        [*words, "--last-failed", "--last-failed-no-failures", "none"], cwd=tmp_path, capture_output=True, check=False
    )
    assert again.returncode == 0
    judged = subprocess.run(
        [sys.executable, "-m", "tests.quarantine", str(tmp_path / "first"), str(cache)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0
    assert judged.stdout == "FLAKY test_it.py::test_once: failed beside others, passed all 1 later tries\n"
