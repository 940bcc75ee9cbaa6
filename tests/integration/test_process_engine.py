"""The engine without containers: one server a deployment, which outlives its terminal and kills no stranger."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.engines import need
from tests.integration.cli import Cli

pytestmark = pytest.mark.server


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    need("process")
    made = Cli(home=tmp_path, engine="process", upstream="http://127.0.0.1:9/simple/")
    try:
        yield made
    finally:
        made.clean()


def record(cli: Cli) -> Path:
    return cli.home / "state" / cli.name / "process" / "record.json"


def kept(cli: Cli) -> dict[str, Any]:
    return dict(json.loads(record(cli).read_text()))


def processes(cli: Cli) -> list[int]:
    """Every process that has the data directory in its command line: supervisors and servers."""
    lines = subprocess.check_output(["ps", "-ww", "-eo", "pid,args"], text=True).splitlines()[1:]
    return [int(line.split()[0]) for line in lines if str(cli.data) in line and "deployer.server" in line]


def until(condition: Any) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_second_up_starts_no_second_server(cli: Cli) -> None:
    assert cli.up().code == 0
    before = processes(cli)
    assert len(before) == 2
    assert cli.up().code == 0
    assert processes(cli) == before


def test_auto_stays_where_the_deployment_is(cli: Cli) -> None:
    assert cli.up().code == 0
    # An engine that would be preferred has come since: whatever is asked of it fails this test.
    later = cli.home / "bin" / "nerdctl"
    later.parent.mkdir()
    later.write_text(f"#!/bin/sh\necho called >>{later}.log\nexit 1\n")
    later.chmod(0o755)
    env = {"PATH": f"{later.parent}:{os.environ['PATH']}"}
    again = cli.run("up", "--port", str(cli.port), "--data", str(cli.data), "--upstream", cli.upstream, env=env)
    assert (again.code, cli.run("plan", *cli.up_words()[1:]).code) == (0, 0), again.err
    assert f"server    {cli.name} unchanged" in again.err
    assert not later.with_name("nerdctl.log").exists()


def test_a_killed_supervisor_takes_its_server_along_and_is_replaced(cli: Cli) -> None:
    assert cli.up().code == 0
    uuid = cli.run("status", "--json").data["server_uuid"]
    os.kill(kept(cli)["pid"], signal.SIGKILL)
    until(lambda: not processes(cli))
    status = cli.run("status", "--json")
    assert (status.code, status.data["state"]) == (6, "stopped")
    again = cli.up("--json")
    assert (again.code, again.data["changes"]) == (0, ["server started"])
    assert cli.run("status", "--json").data["server_uuid"] == uuid
    assert len(processes(cli)) == 2


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock. Fails when another process has it."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def as_script(cli: Cli, *words: str) -> int:
    """The exit code of the console script."""
    return subprocess.run([sys.executable, "-m", "deployer", *words], env=cli.env, check=False).returncode


def test_a_server_loads_while_up_makes_its_plan_and_does_nothing_else(cli: Cli) -> None:
    assert cli.up().code == 0
    assert cli.run("down").code == 0
    with held(cli.home / "state" / cli.name / "lock"):  # the plan is made under this lock
        up = subprocess.Popen([sys.executable, "-m", "deployer", *cli.up_words("--wait", "180")], env=cli.env)
        until(lambda: len(processes(cli)) == 2)
        loading = processes(cli)
        with held(cli.data / ".deployer/lock"), socket.socket() as port:
            port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the kernel may remember connections
            port.bind(("127.0.0.1", cli.port))
    assert up.wait(180) == 0
    assert (processes(cli), kept(cli)["pid"] in loading) == (loading, True)


def test_a_server_that_loaded_in_vain_ends(cli: Cli) -> None:
    assert cli.up().code == 0
    assert cli.run("down").code == 0
    assert as_script(cli, *cli.up_words("--timeout", "no number")) == 2
    until(lambda: not processes(cli))
    other = cli.home / "other"
    assert as_script(cli, "up", "--engine", "process", f"--data={other}", "--new-data") == 0
    until(lambda: not processes(cli))
    assert cli.run("status").code == 0


def test_no_server_loads_beside_one_that_runs(cli: Cli) -> None:
    assert cli.up().code == 0
    running = processes(cli)
    with held(cli.home / "state" / cli.name / "lock"):
        assert as_script(cli, *cli.up_words()) == 75
        assert processes(cli) == running


def test_a_killed_server_comes_back(cli: Cli) -> None:
    assert cli.up().code == 0
    server = next(pid for pid in processes(cli) if pid != kept(cli)["pid"])
    os.kill(server, signal.SIGKILL)
    until(lambda: cli.run("status").code == 0 and server not in processes(cli))
    assert cli.up("--json").data["changes"] == []


def test_a_stranger_that_got_the_number_is_left_alone(cli: Cli) -> None:
    assert cli.up().code == 0
    os.kill(kept(cli)["pid"], signal.SIGKILL)
    until(lambda: not processes(cli))
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            record(cli).write_text(json.dumps(kept(cli) | {"pid": stranger.pid}))
            assert cli.run("status", "--json").data["state"] == "stopped"
            assert cli.run("down").code == 0
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.mark.parametrize("damage", ["", "{", '{"pid": 1}', "[]"])
def test_a_damaged_record_is_not_guessed_at(cli: Cli, damage: str) -> None:
    assert cli.up().code == 0
    whole = record(cli).read_text()
    record(cli).write_text(damage)
    for words in (("status",), ("down",), cli.up_words()):
        done = cli.run(*words)
        assert done.code == 4, done.err
        assert str(record(cli)) in done.err
    record(cli).write_text(whole)
    assert cli.run("status").code == 0


def test_it_outlives_the_terminal(cli: Cli) -> None:
    """The terminal hangs up on everything that was started in it."""
    leader, follower = pty.openpty()
    started = subprocess.Popen(
        cli.argv(*cli.up_words()), env=cli.env, stdin=follower, stdout=follower, stderr=follower, start_new_session=True
    )
    os.close(follower)
    said = b""
    while started.poll() is None or b"try " not in said:
        try:
            said += os.read(leader, 4096)
        except OSError:
            break
    assert started.wait(180) == 0, said
    os.close(leader)
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, signal.SIGHUP)
    assert cli.run("status").code == 0


def test_what_it_said_can_be_read_after_its_end(cli: Cli) -> None:
    assert cli.up().code == 0
    os.kill(kept(cli)["pid"], signal.SIGTERM)
    until(lambda: not processes(cli))
    log = cli.run("logs")
    assert log.code == 0
    assert "Serving on" in log.out
    assert "supervisor: stopped" in log.out


def test_it_gets_nothing_of_the_environment_that_it_needs_not(cli: Cli) -> None:
    assert cli.up(env={"MY_TOKEN": "s3cr3t-canary"}).code == 0
    for pid in processes(cli):
        assert b"s3cr3t-canary" not in Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize("bind", ["::1", "127.0.0.2"])
def test_any_loopback_address_will_do(cli: Cli, bind: str) -> None:
    if bind == "::1" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this host has no IPv6")
    done = cli.up("--bind", bind, "--json")
    assert done.code == 0, done.out
    shown = f"[{bind}]" if ":" in bind else bind
    assert done.data["url"] == f"http://{shown}:{cli.port}"
    assert shown in cli.pip_conf.read_text()
    assert "trusted-host" not in cli.pip_conf.read_text()
    assert cli.run("status").code == 0
