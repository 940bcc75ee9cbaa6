"""deployer itself, killed and interrupted before each of its effects: the next run heals, `down` leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.engines import need
from tests.integration.cli import Cli

ROOT = Path(__file__).resolve().parents[2]
PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)


@pytest.fixture(params=[PROCESS, DOCKER])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(
        home=tmp_path,
        engine=request.param,
        upstream="http://127.0.0.1:9/simple/",
        extra={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    if request.param == "docker":
        assert made.run("image", "build", "--engine", "docker").code == 0
    made.pip_conf.parent.mkdir(parents=True)
    made.pip_conf.write_bytes(b"# mine\n")
    try:
        yield made
    finally:
        made.clean()


def crash(cli: Cli, number: int, name: str, words: Sequence[str]) -> tuple[int, str]:
    """Exit code and what was said of a command that gets a signal before its effect ``number``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.crash", str(number), name, *words],
        env=cli.env,
        cwd=cli.home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def effects(cli: Cli, words: Sequence[str]) -> list[str]:
    """What a command does when nothing happens to it."""
    read, write = os.pipe()
    with os.fdopen(read) as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash", "-1", "SIGKILL", *words],
            env={**cli.env, "CRASH_TOLD": str(write)},
            cwd=cli.home,
            pass_fds=(write,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        lines = told.read().splitlines()
    assert process.wait(60) == 0
    return lines


def leftovers(cli: Cli) -> list[str]:
    """What is still there of a deployment that was taken down: locks may stay, they are nobody's."""
    files = [str(path) for path in cli.home.rglob("*") if path.is_file() and path.suffix != ".lock"]
    found = [path for path in files if not path.endswith("/lock") and path != str(cli.pip_conf)]
    if cli.engine == "docker":
        listed = subprocess.check_output(["docker", "ps", "--all", "--format", "{{.Names}}"], text=True).split()
        found += [name for name in listed if name.startswith(cli.name)]
    else:
        commands = subprocess.check_output(["ps", "-ww", "-eo", "args"], text=True).splitlines()
        found += [line for line in commands if str(cli.data) in line]
    return found


def clear(cli: Cli) -> None:
    """Take all of it away again, and look that it is so."""
    down = cli.run("down", "--purge", "--yes", "--engine", cli.engine)
    assert down.code == 0, down.err
    assert cli.run("configure-pip", "--undo").code == 0
    assert cli.pip_conf.read_bytes() == b"# mine\n"
    assert leftovers(cli) == [], down.err


@pytest.mark.timeout(500)
def test_up_heals_from_a_kill_before_any_effect(cli: Cli) -> None:
    words = cli.up_words()
    steps = effects(cli, words)
    kinds = {step.partition(" ")[0] for step in steps}
    assert {"open", "os.mkdir", "os.rename", "socket.connect"} <= kinds
    assert any("pip.conf" in step for step in steps)
    assert any("applied.json" in step for step in steps)
    clear(cli)
    # Waiting connects again and again: of effects that repeat, the first and the last are as good as all.
    worth = [number for number, step in enumerate(steps) if step not in (steps[number - 1 : number] or [""])]
    assert len(worth) > 15
    killed = 0
    for number in worth:
        code, said = crash(cli, number, "SIGKILL", words)
        if code == 0:  # it connected less often while it waited, and is through
            break
        assert code == -signal.SIGKILL, (number, steps[number], said)
        killed += 1
        healed = cli.up()
        assert healed.code == 0, (number, steps[number], healed.err)
        assert cli.run("status", "--engine", cli.engine).code == 0, (number, steps[number])
        clear(cli)
    assert killed > 15


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_up_undoes_what_it_did_when_it_is_interrupted(cli: Cli, name: str) -> None:
    words = cli.up_words()
    steps = effects(cli, words)
    clear(cli)
    undone = 0
    for number in range(1, len(steps), 4):
        code, said = crash(cli, number, name, words)
        # What comes after the server is ready is no reason to take it away again.
        if "\nindexes " in said:
            clear(cli)
            continue
        assert code == 130, (number, steps[number], said)
        assert "interrupted" in said
        assert leftovers(cli) == [], (number, steps[number], said)
        undone += 1
    assert undone > 4
    assert cli.up().code == 0
    clear(cli)


def test_an_interrupted_change_brings_back_what_ran(cli: Cli) -> None:
    assert cli.up().code == 0
    before = cli.run("status", "--json").data
    words = cli.up_words("--set", "server.threads=7")
    steps = effects(cli, words)
    assert cli.up().code == 0
    for number in range(1, len(steps), max(1, len(steps) // 6)):
        code, said = crash(cli, number, "SIGTERM", words)
        assert code in (0, 130), (number, steps[number], said)
        assert cli.up().code == 0
        after = cli.run("status", "--json").data
        assert (after["ready"], after["server_uuid"]) == (True, before["server_uuid"])
    clear(cli)


def test_down_can_be_run_again_after_a_kill(cli: Cli) -> None:
    assert cli.up().code == 0
    words = ("down", "--purge", "--yes", "--engine", cli.engine)
    steps = effects(cli, words)
    for number in range(len(steps)):
        if "lock" in steps[number]:
            continue
        assert cli.up().code == 0, (number, steps[number])
        code, said = crash(cli, number, "SIGKILL", words)
        assert code in (0, -signal.SIGKILL), (number, steps[number], said)
    clear(cli)


@pytest.mark.server
def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    need("process")
    cli = Cli(home=tmp_path, engine="process", extra={"PYTHONPATH": str(ROOT)})
    holder = "from deployer.state import hold; import time\nwith hold('it'): print('held', flush=True); time.sleep(600)"
    env = {**cli.env, "DEPLOYER_NAME": "it"}
    with subprocess.Popen([sys.executable, "-c", holder], env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert cli.run("down", "--name", "it", "--engine", "process").code == 75
        process.kill()
    assert cli.run("down", "--name", "it", "--engine", "process").code != 75


@pytest.mark.server
@pytest.mark.parametrize(
    "words", [("--help",), ("profiles", "reference"), ("status", "--json"), ("plan",)], ids=" ".join
)
def test_a_reader_that_goes_away_is_no_defect(words: tuple[str, ...], tmp_path: Path) -> None:
    need("process")
    cli = Cli(home=tmp_path, engine="process")
    with subprocess.Popen(
        cli.argv(*words), env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
    assert "Traceback" not in said
    assert "Broken pipe" not in said
