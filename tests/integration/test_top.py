"""`deployer top` on a real server: one screen without a terminal, and a live one that Ctrl-C ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli
from tests.server_process import PATIENCE
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    need("process")
    with Upstream([make_wheel("demo", "1.0")]) as upstream:
        made = Cli(home=tmp_path_factory.mktemp("home"), engine="process", network="host", upstream=upstream.simple_url)
        try:
            assert made.up("--no-pip").code == 0
            yield made
        finally:
            made.clean()


def test_one_screen_is_printed_without_a_terminal(cli: Cli) -> None:
    done = cli.run("top")
    assert done.code == 0, done.err
    assert "\x1b" not in done.out
    assert "threads" in done.out
    assert len(done.out.splitlines()) <= 24
    assert max(map(len, done.out.splitlines())) <= 80
    data = cli.run("top", "--json").data
    assert data["threads"]["total"] > 0
    assert data["counted"].keys() >= {"since", "indexes", "upstreams"}


def read(terminal: int, until: bytes) -> bytes:
    got = b""
    deadline = time.monotonic() + PATIENCE
    while until not in got:
        assert time.monotonic() < deadline, got[-2000:]
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                got += os.read(terminal, 65536)
            except OSError:  # the other side is closed
                break
    return got


def test_the_live_view_ends_at_ctrl_c_and_restores_the_terminal(cli: Cli) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [sys.executable, "-m", "deployer", "top", "--interval", "0.5"]
    env = {**cli.env, "TERM": "xterm"}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True, preexec_fn=_owned
    )
    try:
        os.close(theirs)
        assert b"threads" in read(ours, b"busy")
        read(ours, b"/s)")  # the second screen has rates
        os.write(ours, b"\x03")
        rest = read(ours, b"\x1b[?1049l")
        assert process.wait(PATIENCE) == 0
        assert b"Traceback" not in rest
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _owned() -> None:
    """Make the terminal that of the new session, so that it sends SIGINT."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_stopped_server_is_an_error(cli: Cli, tmp_path: Path) -> None:
    other = Cli(home=tmp_path, engine="process")
    assert other.run("top", "--once").code == 5
