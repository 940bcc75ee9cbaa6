"""Standard streams that are closed or full: one line, the right exit code, and the work is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deployer.errors import OutputError
from deployer.ui.streams import Messages, Results


def shell(tmp_path: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What a shell makes of ``line``, where ``$D`` is the command line of a user without an engine."""
    known = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "D": f"{sys.executable} -m deployer.cli", **env}
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=known, cwd=tmp_path, check=False)


@pytest.mark.parametrize("words", ["--help", "--version", "profiles", "profiles --json", "render --engine docker"])
def test_a_full_disk_ends_in_two_lines(words: str, tmp_path: Path) -> None:
    done = shell(tmp_path, f"$D {words} >/dev/full")
    assert done.returncode == 74
    error, hint = [line for line in done.stderr.splitlines() if not line.startswith("warning")]
    assert error == "error     stdout can't be written: No space left on device"
    assert hint.startswith("hint      free disk space")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("$D profiles >&-", 0),
        ("$D profiles 2>&-", 0),
        ("$D --help <&- >&- 2>&-", 0),
        ("$D profiles 2>/dev/full", 0),
        ("$D nosuch 2>/dev/full", 2),
        ("$D nosuch 2>&-", 2),
        ("$D down <&- 2>&-", 0),
        ("$D profiles | true", 0),
    ],
)
def test_a_closed_stream_is_no_failure(line: str, code: int, tmp_path: Path) -> None:
    done = shell(tmp_path, line)
    assert (done.returncode, done.stderr) == (code, "")


def test_a_file_does_not_get_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Its lock would else be standard error, of our own programs as well."""
    program = "from deployer.ui.streams import prepare; prepare(); print(open('f', 'w').fileno() > 2)"
    done = shell(tmp_path, f'{sys.executable} -c "{program}" <&- 2>&-')
    assert done.stdout == "True\n"


def test_completion_that_can_not_be_installed(tmp_path: Path) -> None:
    (tmp_path / ".bashrc").mkdir()
    done = shell(tmp_path, "bash -c '$D --install-completion; exit $?'")  # the shell is that of the parent process
    assert done.returncode == 8
    assert done.stderr.splitlines() == [
        f"error     {tmp_path}/.bashrc can't be written: Is a directory",
        f"hint      correct its mode and owner: ls -ld {tmp_path}/.bashrc",
    ]


def test_a_lost_result_is_told_and_a_lost_message_is_not() -> None:
    with Path("/dev/full").open("w") as full:
        with pytest.raises(OutputError):
            print("x", file=Results(full), flush=True)  # type: ignore[arg-type]
        print("x", file=Messages(full), flush=True)  # type: ignore[arg-type]
