"""The log of a server that runs as a process, read back line by line."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployer.engines.process_log import read
from deployer.server.boot.supervisor import Log

STRANGE = ["plain", "a\u2028b", "form\x0cfeed", "next\x85line", "20 %\r40 %", "", "  indented"]
"""What some program's idea of the end of a line is in the middle of."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def kept(path: Path, *, since: str = "", tail: int | None = None) -> list[str]:
    return list(read(path, since=since, tail=tail))


def write(path: Path, *lines: str, max_bytes: int = 1 << 20) -> None:
    log = Log(path, max_bytes=max_bytes, max_files=3)
    for line in lines:
        log.write(line)


def test_what_was_said_comes_back_line_by_line(path: Path) -> None:
    write(path, *STRANGE)
    assert kept(path) == STRANGE


def test_what_is_said_meanwhile_comes_line_by_line(path: Path) -> None:
    write(path, "before")
    rounds = iter([False, True])

    def over() -> bool:
        ended = next(rounds)
        if not ended:
            write(path, *STRANGE)
        return ended

    assert list(read(path, over=over)) == ["before", *STRANGE]


def test_what_is_said_while_the_older_lines_are_shown_is_not_lost(path: Path) -> None:
    write(path, "one", "two")
    lines = read(path, over=lambda: True)
    assert next(lines) == "one"
    write(path, "three", max_bytes=1)  # which rotates the file away
    assert list(lines) == ["two", "three"]


def test_an_empty_log_has_no_line(path: Path) -> None:
    path.touch()
    assert kept(path) == []


def test_the_oldest_comes_first_and_other_files_are_no_log(path: Path) -> None:
    write(path, "one", "two", "three", max_bytes=10)
    for name in ("server.log.gz", "server.log.old", "server.log.²"):
        path.with_name(name).write_text("somebody's own copy\n")
    assert kept(path) == ["one", "two", "three"]
    assert kept(path, tail=2) == ["two", "three"]
    assert kept(path, tail=0) == []


def test_only_what_is_new_enough(path: Path) -> None:
    path.write_text("2026-01-01T00:00:00.000Z old\n2026-01-02T00:00:00.000Z new\n")
    assert kept(path, since="2026-01-02T00:00:00.000Z") == ["new"]


def test_what_came_before_there_was_a_log_is_told_whole(path: Path) -> None:
    said = ["Traceback (most recent call last):", '  File "x.py", line 1', "OSError: no space"]
    path.write_text("\n".join(said))
    assert kept(path) == said
    assert kept(path, since="2026-01-02T00:00:00.000Z") == said


def test_without_a_file_nothing_was_said(path: Path) -> None:
    assert kept(path) == []
