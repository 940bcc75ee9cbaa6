"""deployer itself, killed and interrupted before each of its effects: the next run heals, `down` leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import need
from tests.forked import run_module
from tests.integration.cli import Cli

PATIENCE = 180.0
ROOT = Path(__file__).resolve().parents[2]
PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
SWEPT = [PROCESS, pytest.param("docker", marks=[pytest.mark.docker, pytest.mark.endurance])]
"""Of tests that kill a command at each of its steps: half a minute more for an engine that differs in few of them."""


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
        made.have_image()
    made.pip_conf.parent.mkdir(parents=True)
    made.pip_conf.write_bytes(b"# mine\n")
    try:
        yield made
    finally:
        made.clean()


@dataclass(frozen=True)
class Point:
    """A moment of a command: just before it does ``effect`` for the ``count``-th time."""

    effect: str
    count: int = 1


def points(told: Sequence[str]) -> list[Point]:
    """Every moment, in order, that comes again when the command is run again.

    Waiting connects, and asks the engine, as often as it takes: of what repeats the first two times are as good as all.
    """
    seen = Counter[str]()
    found = []
    for effect in told:
        seen[effect] += 1
        if seen[effect] <= 2:
            found.append(Point(effect, seen[effect]))
    return found


def crash_argv(point: Point, name: str, words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests.crash", name, str(point.count), point.effect, *words]


def crash(cli: Cli, point: Point, name: str, words: Sequence[str]) -> tuple[int, str]:
    """Exit code and what was said of a command that gets a signal at ``point``."""
    _, _, module, *rest = crash_argv(point, name, words)
    done = run_module(module, rest, env=cli.env, cwd=cli.home, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def effects(cli: Cli, words: Sequence[str]) -> list[str]:
    """What a command does when nothing happens to it."""
    read, write = os.pipe()
    with os.fdopen(read) as told:
        process = subprocess.Popen(
            crash_argv(Point("never", 0), "SIGKILL", words),
            env={**cli.env, "CRASH_TOLD": str(write)},
            cwd=cli.home,
            pass_fds=(write,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        lines = told.read().splitlines()
    assert process.wait(PATIENCE) == 0
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
    # What a killed run had started, and not yet told to go on, ends by itself as soon as it gets to run.
    deadline = time.monotonic() + PATIENCE
    while found := leftovers(cli):
        assert time.monotonic() < deadline, (found, down.err)
        time.sleep(0.1)


def usual(cli: Cli, words: Sequence[str]) -> list[Point]:
    """The moments of ``up`` where it has been before: its state directory and its locks are there already."""
    effects(cli, words)
    clear(cli)
    told = effects(cli, words)
    clear(cli)
    if cli.engine == "docker":
        # Its files are those of the other engine, and are not written in another way.
        told = [effect for effect in told if effect.startswith(("start ", "connect", f"os.mkdir {cli.data}", "os.ch"))]
    return points(told)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("cli", SWEPT, indirect=True)
def test_up_heals_from_a_kill_before_any_effect(cli: Cli) -> None:
    words = cli.up_words()
    moments = usual(cli, words)
    if cli.engine == "process":
        kinds = {point.effect.partition(" ")[0] for point in moments}
        assert {"open", "start", "connect", "os.mkdir", "os.rename"} <= kinds
        for file in ("record.json", "applied.json", "pip.conf"):
            assert any(file in point.effect for point in moments)
    killed = 0
    for point in moments:
        code, said = crash(cli, point, "SIGKILL", words)
        # It may have been ready before it had to look a second time.
        assert code == -signal.SIGKILL or (code == 0 and point.count == 2), (point, said)
        killed += code != 0
        healed = cli.up()
        assert healed.code == 0, (point, healed.err)
        assert cli.run("status", "--engine", cli.engine).code == 0, point
        clear(cli)
    assert killed > 8


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_up_undoes_what_it_did_when_it_is_interrupted(cli: Cli, name: str) -> None:
    words = cli.up_words()
    undone = 0
    for point in usual(cli, words)[["SIGINT", "SIGTERM"].index(name) :: 2]:
        code, said = crash(cli, point, name, words)
        # What comes after the server is ready is no reason to take it away again.
        if "\nindexes " in said:
            clear(cli)
            continue
        assert code == 130, (point, said)
        assert "interrupted" in said
        assert leftovers(cli) == [], (point, said)
        undone += 1
    assert undone > 3
    assert cli.up().code == 0
    clear(cli)


@pytest.mark.timeout(900)
def test_an_interrupted_change_brings_back_what_ran(cli: Cli) -> None:
    assert cli.up().code == 0
    before = cli.run("status", "--json").data
    words = cli.up_words("--set", "server.threads=7")
    moments = points(effects(cli, words))
    assert cli.up().code == 0
    for point in moments[1 :: max(1, len(moments) // 6)]:
        code, said = crash(cli, point, "SIGTERM", words)
        assert code in (0, 130), (point, said)
        assert cli.up().code == 0
        after = cli.run("status", "--json").data
        assert (after["ready"], after["server_uuid"]) == (True, before["server_uuid"])
    clear(cli)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("cli", SWEPT, indirect=True)
def test_down_can_be_run_again_after_a_kill(cli: Cli) -> None:
    assert cli.up().code == 0
    words = ("down", "--purge", "--yes", "--engine", cli.engine)
    moments = [point for point in points(effects(cli, words)) if "lock" not in point.effect]
    # Of what goes with its folder, one by one, the first and the last are as good as all.
    within = [point for point in moments if point.effect.startswith("os.r") and "/" not in point.effect]
    for point in moments:
        if point in within[1:-1]:
            continue
        assert cli.up().code == 0, point
        code, said = crash(cli, point, "SIGKILL", words)
        assert code in (0, -signal.SIGKILL), (point, said)
    clear(cli)


@pytest.mark.server
def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    need("process")
    cli = Cli(home=tmp_path, engine="process", extra={"PYTHONPATH": str(ROOT)})
    holder = "import time; from deployer.deployment.lock import hold\n"
    holder += "with hold('it'): print('held', flush=True); time.sleep(600)"
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
