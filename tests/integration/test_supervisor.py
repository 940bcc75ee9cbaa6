"""The process engine's parent: what it restarts, what it takes along, and what it leaves alone."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.server_process import PATIENCE, Server, login

pytestmark = pytest.mark.server


@dataclass
class Supervised:
    """A supervisor with a server of its own below it."""

    server: Server
    log_file: Path
    supervisor: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        words = [sys.executable, "-m", "deployer.server", "supervise", "--log", str(self.log_file), *options, "--"]
        self.supervisor = subprocess.Popen([*words, *self.server.words], stdin=subprocess.DEVNULL)

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    @property
    def children(self) -> list[int]:
        """Every server that was started, in order."""
        return [int(pid) for pid in re.findall(r"supervisor: started process (\d+)", self.log)]

    def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.02)

    def wait(self) -> int:
        assert self.supervisor is not None
        return self.supervisor.wait(PATIENCE)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie that waits to be reaped."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(") ")[2][0] not in "ZX"


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    it = Supervised(Server(tmp_path / "server"), tmp_path / "log" / "server.log")
    it.log_file.parent.mkdir()
    try:
        yield it
    finally:
        if it.supervisor is not None:
            it.supervisor.kill()
            it.supervisor.wait()


def test_its_log_has_times_and_no_secret_and_it_stops_cleanly(supervised: Supervised) -> None:
    supervised.start()
    supervised.server.wait()
    assert login(supervised.server.port, supervised.server.password)[0] == 200
    assert supervised.supervisor is not None
    supervised.supervisor.send_signal(signal.SIGHUP)  # the terminal went away
    assert supervised.server.answers()
    supervised.supervisor.send_signal(signal.SIGTERM)
    assert supervised.wait() == 0
    assert not runs(supervised.children[0])
    assert not (supervised.server.private / "running").exists()
    lines = supervised.log.splitlines()
    assert len(lines) > 5
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in lines)
    assert lines[-1].endswith("supervisor: stopped, exit code 0")
    assert supervised.server.password not in supervised.log
    assert supervised.log_file.stat().st_mode & 0o777 == 0o600


def test_a_killed_server_comes_back(supervised: Supervised) -> None:
    supervised.start()
    supervised.server.wait()
    os.kill(supervised.children[0], signal.SIGKILL)
    supervised.until(lambda: len(supervised.children) == 2)
    supervised.server.wait()
    assert "supervisor: exit code 137, restarting" in supervised.log


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_a_killed_supervisor_takes_the_server_along(supervised: Supervised) -> None:
    supervised.start()
    supervised.server.wait()
    assert supervised.supervisor is not None
    supervised.supervisor.kill()
    supervised.wait()
    supervised.until(lambda: not runs(supervised.children[0]))
    supervised.start()  # and the directory is free for the next one
    supervised.server.wait()


def test_what_no_restart_can_cure_is_not_tried_again(supervised: Supervised) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", supervised.server.port))
        listener.listen()
        supervised.start("--restart", "always")
        assert supervised.wait() == 5
    assert len(supervised.children) == 1
    assert f"deployer: exit code 5: port {supervised.server.port} of 127.0.0.1 is taken" in supervised.log


def test_a_server_that_ends_at_once_is_given_up(supervised: Supervised) -> None:
    supervised.start("--restart", "on-failure:1")
    supervised.server.wait()
    assert supervised.supervisor is not None
    for count in (1, 2):
        supervised.until(lambda wanted=count: len(supervised.children) == wanted)
        os.kill(supervised.children[-1], signal.SIGKILL)
    assert supervised.wait() == 137
    assert "exit code 137, not restarted" in supervised.log


def test_five_quick_ends_are_enough(supervised: Supervised) -> None:
    supervised.start("--restart", "always")
    for count in range(1, 6):
        supervised.until(lambda wanted=count: len(supervised.children) == wanted)
        os.kill(supervised.children[-1], signal.SIGKILL)
    assert supervised.wait() == 137
    assert len(supervised.children) == 5


def test_a_stop_ends_the_wait_before_a_restart(supervised: Supervised) -> None:
    supervised.start()
    for count in (1, 2, 3, 4):  # the fourth wait is of four seconds
        supervised.until(lambda wanted=count: len(supervised.children) == wanted)
        os.kill(supervised.children[-1], signal.SIGKILL)
    supervised.until(lambda: "restarting in 4.0 s" in supervised.log)
    assert supervised.supervisor is not None
    supervised.supervisor.send_signal(signal.SIGTERM)
    assert supervised.wait() == 0
    assert len(supervised.children) == 4


def test_a_frozen_server_is_killed_in_the_end(supervised: Supervised) -> None:
    supervised.start()
    supervised.server.wait()
    os.kill(supervised.children[0], signal.SIGSTOP)
    assert supervised.supervisor is not None
    supervised.supervisor.send_signal(signal.SIGTERM)
    assert supervised.wait() == 0
    assert not runs(supervised.children[0])


def test_rotation_keeps_what_the_server_says(supervised: Supervised) -> None:
    supervised.start("--log-max-size", "2k", "--log-max-files", "2")
    supervised.server.wait()
    rotated = supervised.log_file.with_name("server.log.1")
    while not rotated.exists():
        assert supervised.server.answers()
    assert supervised.supervisor is not None
    supervised.supervisor.send_signal(signal.SIGTERM)  # what is looked at is not to change meanwhile
    assert supervised.wait() == 0
    files = sorted(supervised.log_file.parent.iterdir())
    assert [path.name for path in files] == ["server.log", "server.log.1"]
    assert all(path.stat().st_size <= 2048 and path.stat().st_mode & 0o777 == 0o600 for path in files)
    assert "supervisor: stopped, exit code 0" in supervised.log


@pytest.mark.parametrize("options", [("--restart", "never"), ("--log-max-size", "many")])
def test_options_that_mean_nothing_are_refused(supervised: Supervised, options: tuple[str, str]) -> None:
    supervised.start(*options)
    assert supervised.wait() == 2
    assert not supervised.server.serverdir.exists()
