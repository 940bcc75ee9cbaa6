"""The supervisor's log and restart policy, without a process."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from deployer.protocol import ExitCode
from deployer.server.boot.supervisor import MOST_FAILURES, Log, Policy


@pytest.mark.parametrize("text", ["", "never", "always:3", "no:1", "on-failure:x"])
def test_policies_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        Policy.parse(text)


@pytest.mark.parametrize(
    ("policy", "after_success", "after_failure"),
    [("no", False, False), ("always", True, True), ("unless-stopped", True, True), ("on-failure", False, True)],
)
def test_what_is_started_again(policy: str, after_success: bool, after_failure: bool) -> None:
    parsed = Policy.parse(policy)
    assert parsed.again(0, ends=1) is after_success
    assert parsed.again(1, ends=1) is after_failure


@pytest.mark.parametrize("code", [ExitCode.CONFLICT, ExitCode.VERIFICATION, ExitCode.REFUSED])
@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure:9"])
def test_a_refusal_is_not_tried_again(policy: str, code: int) -> None:
    assert not Policy.parse(policy).again(code, ends=1)


def test_it_is_given_up_after_some_quick_ends() -> None:
    assert [Policy.parse("always").again(1, ends=n) for n in range(1, 7)] == [True] * (MOST_FAILURES - 1) + [False] * 2
    assert [Policy.parse("on-failure:2").again(1, ends=n) for n in range(1, 4)] == [True, True, False]


def test_lines_carry_their_time_and_nobody_else_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.touch(mode=0o644)
    log = Log(path, max_bytes=1000, max_files=3)
    log.write("one")
    log.write("zwei \udcff")
    lines = path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["one", "zwei ?"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z .*", line) for line in lines)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    kinds = {name: tmp_path / name for name in ("link", "fifo", "directory", "linked")}
    target = tmp_path / "of-another"
    target.touch(mode=0o644)
    kinds["link"].symlink_to(target)
    kinds["linked"].hardlink_to(target)
    os.mkfifo(kinds["fifo"], 0o644)
    kinds["directory"].mkdir(mode=0o755)
    for path in (*kinds.values(), Path("/dev/null")):
        before = path.lstat()
        with pytest.raises(OSError):
            Log(path, max_bytes=1000, max_files=3)
        assert (path.lstat().st_mode, path.lstat().st_ino) == (before.st_mode, before.st_ino)
    assert target.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("files", [1, 2, 3])
def test_the_log_is_rotated_by_size(tmp_path: Path, files: int) -> None:
    path = tmp_path / "server.log"
    log = Log(path, max_bytes=200, max_files=files)
    for number in range(100):
        log.write(f"line {number}")
    found = sorted(tmp_path.iterdir())
    assert [p.name for p in found] == ["server.log", "server.log.1", "server.log.2"][:files]
    assert all(p.stat().st_size <= 200 and p.stat().st_mode & 0o777 == 0o600 for p in found)
    kept = [int(line.rpartition(" ")[2]) for p in reversed(found) for line in p.read_text().splitlines()]
    assert kept == list(range(100 - len(kept), 100))  # the newest, in order, without a gap


def test_a_log_that_was_there_counts(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("#" * 150 + "\n")
    Log(path, max_bytes=170, max_files=2).write("next")
    assert "#" not in path.read_text()
    assert path.with_name("server.log.1").read_text().startswith("###")
