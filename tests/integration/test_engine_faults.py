"""Engines that are missing, down, forbidden, mad or half-way gone: told in a line, and nothing is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from deployer.errors import EngineUnreachable
from deployer.host.runner import Runner
from deployer.image import reference
from tests.engines import BASE, need
from tests.integration.cli import Cli, Done

VERSION = json.dumps({"Client": {"Version": "1.0"}, "Server": {"Version": "1.0"}})

STAND_IN = """#!{python}
import json, os, sys
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "asked"), "a") as log:
    log.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
for words, code, out, err in json.load(open(os.path.join(here, "answers"))):
    if sys.argv[1 : 1 + len(words)] == words:
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(code)
sys.exit("unexpected: " + " ".join(sys.argv))
"""


class StandIn:
    """A directory that is all of ``PATH``: programs of given names, which note what they are asked."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.directory = directory
        directory.mkdir()
        for name in names:
            program = directory / name
            program.write_text(STAND_IN.format(python=sys.executable))
            program.chmod(0o755)
        self.answers()

    def answers(self, *answers: tuple[Sequence[str], int, str, str]) -> None:
        (self.directory / "answers").write_text(json.dumps(answers))

    @property
    def asked(self) -> list[list[str]]:
        log = self.directory / "asked"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def alone(tmp_path: Path, stand_in: StandIn, engine: str = "docker") -> Cli:
    """A user whose PATH has nothing but the stand-in, and whose docker socket is nowhere."""
    extra = {"PATH": str(stand_in.directory), "DOCKER_HOST": f"unix://{tmp_path}/nosock"}
    return Cli(home=tmp_path, engine=engine, extra=extra)


def left_alone(tmp_path: Path) -> bool:
    """No data, no client file, and no state but the lock and its folders."""
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "bin" not in path.parts]
    return all(path.name == "lock" for path in files) and not (tmp_path / "data").exists()


def two_lines(done: Done) -> bool:
    """One line of cause and one of cure are all that an error is, besides its details."""
    lines = done.err.splitlines()
    return (
        sum(line.startswith("error ") for line in lines) == 1 and sum(line.startswith("hint ") for line in lines) == 1
    )


# Engines that never come to answer


@pytest.mark.parametrize("engine", ["nerdctl", "docker", "podman"])
def test_an_engine_that_is_missing(engine: str, tmp_path: Path) -> None:
    cli = alone(tmp_path, StandIn(tmp_path / "bin"), engine)
    done = cli.up()
    assert done.code == 4
    assert engine in done.err
    assert two_lines(done)
    assert left_alone(tmp_path)


def test_what_auto_passes_over_is_told(tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path / "bin", "docker", "podman")
    denied = "Got permission denied while trying to connect to the Docker daemon socket"
    stand_in.answers((["version"], 1, "", denied))
    plan = alone(tmp_path, stand_in).run("plan", "--engine", "auto", "--port", "0", "--json").envelope
    assert plan["data"]["engine"] == "process"
    told = "\n".join(plan["data"]["steps"]["engine"])
    assert "nerdctl: not installed" in told
    assert "docker: permission denied" in told


@pytest.mark.docker
def test_a_daemon_that_is_down(tmp_path: Path) -> None:
    need("docker")
    cli = Cli(home=tmp_path, engine="docker", extra={"DOCKER_HOST": f"unix://{tmp_path}/nosock"})
    done = cli.up()
    assert done.code == 4
    assert "--engine process" in done.err
    assert two_lines(done)
    assert left_alone(tmp_path)
    assert cli.run("status", "--engine", "docker", "--json").envelope["error"]["code"] == "engine-unreachable"


def test_a_socket_that_is_forbidden(tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path / "bin", "docker", "sudo")
    stand_in.answers((["version"], 1, "", "permission denied while trying to connect to the docker API at unix:///s"))
    done = alone(tmp_path, stand_in).up()
    assert done.code == 4
    assert "group" in done.err
    assert "rootless" in done.err
    assert {words[0] for words in stand_in.asked} == {"docker"}
    assert left_alone(tmp_path)


def test_an_engine_that_hangs(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    with pytest.raises(EngineUnreachable, match="did not answer within"):
        Runner().run([str(program), "version"], timeout=0.3)


@pytest.mark.parametrize("junk", ["", "WARNING: all is well\n", "[]", "42", '{"Server": null}', "<html>", "{" * 9999])
def test_an_engine_that_talks_nonsense(junk: str, tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path / "bin", "docker")
    stand_in.answers((["version"], 0, junk, ""))
    done = alone(tmp_path, stand_in).up()
    assert done.code == 4
    assert two_lines(done)
    assert left_alone(tmp_path)


def test_warnings_beside_the_answer_do_no_harm(tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path / "bin", "docker")
    stand_in.answers(
        (["version"], 0, VERSION, "WARNING: this engine is old\n"),
        (["info"], 0, "[]", ""),
        (["container", "inspect"], 1, "[]\n", "Error: No such container: x\n"),
        (["image", "inspect"], 1, "[]\n", "Error: No such image: x\n"),
    )
    done = alone(tmp_path, stand_in).run("plan", "--engine", "docker", "--json")
    assert done.code == 10
    assert done.data["engine"] == "docker"


@pytest.mark.parametrize(
    "words",
    [
        ("--image=--privileged",),
        ("--image=x --privileged",),
        ("--base-image=-v/:/h",),
        ("--name=-v/:/h",),
        ("--name=../x",),
        ("--data=volume:--privileged",),
        ("--data=volume:/etc",),
        ("--bind=--network=host",),
        ("--set", "image.user=--privileged"),
        ("--set", "server.restart=always --privileged"),
        ("--set", "server.memory=1g --privileged"),
        ("--set", "image.env={-v: x}"),
        ("--index=--x/y",),
    ],
    ids=" ".join,
)
def test_no_value_becomes_an_option(words: tuple[str, ...], tmp_path: Path) -> None:
    stand_in = StandIn(tmp_path / "bin", "docker")
    stand_in.answers((["version"], 0, VERSION, ""), (["container", "inspect"], 1, "[]", "No such container"))
    done = alone(tmp_path, stand_in).up(*words)
    assert done.code in (2, 3), done.err
    assert not any("run" in asked or "build" in asked for asked in stand_in.asked)
    assert left_alone(tmp_path)


# A real engine, in trouble


DOCKER = pytest.param("docker", marks=pytest.mark.docker)
PODMAN = pytest.param("podman", marks=pytest.mark.podman)


@pytest.fixture(params=[DOCKER, PODMAN])
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    need(request.param)
    made = Cli(home=tmp_path, engine=request.param)
    try:
        yield made
    finally:
        made.clean()


def asked(cli: Cli, *words: str) -> str:
    """What the engine's own client says."""
    return subprocess.run([cli.engine, *words], check=True, capture_output=True, text=True).stdout.strip()


def containers(cli: Cli) -> list[str]:
    names = asked(cli, "ps", "--all", "--format={{.Names}}").split()
    return [name for name in names if name.startswith(cli.name)]


DYING = """#!{python}
import os, sys
count = os.path.join(os.path.dirname(os.path.abspath(__file__)), "count")
number = int(open(count).read()) if os.path.exists(count) else 0
open(count, "w").write(str(number + 1))
if number >= {calls}:
    sys.exit("Cannot connect to the Docker daemon at unix:///gone. Is the docker daemon running?")
os.execv({docker!r}, ["docker", *sys.argv[1:]])
"""


@pytest.mark.parametrize("cli", [DOCKER], indirect=True)  # podman has none
def test_a_daemon_that_dies_at_any_call(cli: Cli) -> None:
    """The n-th call is the last that is answered, for every n until there are enough; then everything heals."""
    real = subprocess.check_output(["sh", "-c", "command -v docker"], text=True).strip()
    cli.have_image()
    codes = []
    for calls in range(30):
        bin_ = cli.home / f"bin-{calls}"
        bin_.mkdir()
        (bin_ / "docker").write_text(DYING.format(python=sys.executable, calls=calls, docker=real))
        (bin_ / "docker").chmod(0o755)
        done = cli.up("--json", env={"PATH": f"{bin_}:{os.environ['PATH']}"})
        codes.append(done.code)
        if done.code == 0:
            break
        assert done.code == 4, done.out
        assert done.envelope["error"]["code"] in ("engine-unreachable", "engine-failed"), done.out
    assert len(codes) > 4
    assert codes[-1] == 0
    healed = cli.up("--json")
    assert healed.code == 0, healed.err
    assert cli.run("status").code == 0
    assert containers(cli) == [cli.name]


def test_a_stranger_with_our_name_is_left_alone(cli: Cli) -> None:
    asked(cli, "create", f"--name={cli.name}", "--label=somebody=else", BASE, "true")
    try:
        before = asked(cli, "inspect", cli.name)
        for words in (cli.up_words(), ("down", "--purge", "--yes"), ("restart",)):
            done = cli.run(*words)
            assert done.code in (5, 6), done.err
        assert cli.run(*cli.up_words()).code == 5
        assert asked(cli, "inspect", cli.name) == before
    finally:
        asked(cli, "rm", "--force", cli.name)


def test_an_image_that_is_not_to_be_had_disturbs_nothing(cli: Cli) -> None:
    assert cli.up().code == 0
    before = asked(cli, "inspect", "--format={{.Id}} {{.State.StartedAt}}", cli.name)
    done = cli.up("--image", "localhost/deployer-test-nowhere:1")
    assert done.code == 4
    assert "load" in done.err
    assert two_lines(done)
    assert asked(cli, "inspect", "--format={{.Id}} {{.State.StartedAt}}", cli.name) == before
    assert cli.run("status").code == 0


def test_an_image_that_is_not_the_pinned_one_is_not_started(cli: Cli) -> None:
    done = cli.up("--image", BASE, "--set", f"image.digest=sha256:{'0' * 64}")
    assert done.code == 11
    assert "image.digest" in done.err
    assert containers(cli) == []


@pytest.mark.parametrize("command", ["[]", "[/bin/true]", "[/bin/sh, -c, echo last words; exit 3]", "[/no/such]"])
def test_an_image_that_does_not_serve(cli: Cli, command: str) -> None:
    done = cli.up("--image", BASE, "--set", f"image.command={command}", "--timeout", "60")
    assert done.code in (4, 6), done.err
    assert two_lines(done)
    if "last words" in command:
        assert "          last words" in done.err.splitlines()
    assert containers(cli) == []
    assert not cli.data.exists()


def test_a_build_that_fails_leaves_the_image_that_was_there(cli: Cli, tmp_path: Path) -> None:
    cli.have_image()
    before = asked(cli, "image", "inspect", "--format={{.Id}}", reference())
    empty = "localhost/deployer-test-empty:1"
    subprocess.run([cli.engine, "import", "-", empty], input=b"\0" * 1024, check=True, capture_output=True)
    try:
        done = cli.up("--base-image", empty)
    finally:
        asked(cli, "rmi", "--force", empty)
    assert done.code == 4
    assert two_lines(done)
    assert re.search(r"can't be built: \S", done.err)
    assert asked(cli, "image", "inspect", "--format={{.Id}}", reference()) == before
    assert not cli.data.exists()


def test_the_log_of_a_container_is_rotated(cli: Cli) -> None:
    assert cli.up().code == 0
    config = json.loads(asked(cli, "inspect", "--format={{json .HostConfig.LogConfig}}", cli.name))
    if cli.engine == "podman":  # it keeps one file
        assert (config["Type"], config["Size"]) == ("k8s-file", "10MB")
    else:
        assert config == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


@pytest.mark.parametrize("how", ["stop", "pause", "kill"])
def test_a_container_that_somebody_stopped_is_started_again(cli: Cli, how: str) -> None:
    assert cli.up().code == 0
    uuid = cli.run("status", "--json").data["server_uuid"]
    asked(cli, how, cli.name)
    assert cli.run("status", timeout=60).code == 6
    again = cli.up("--json")
    assert again.code == 0, again.err
    assert again.data["changes"] == ["server started"]
    assert cli.run("status", "--json").data["server_uuid"] == uuid


def kill_with_monitor(cli: Cli) -> None:
    for pid in asked(cli, "inspect", "--format={{.State.ConmonPid}} {{.State.Pid}}", cli.name).split():
        os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 60
    while (status := cli.run("status")).code == 0 or "killed" not in status.err:
        assert time.monotonic() < deadline, status
    assert two_lines(status)


@pytest.mark.parametrize("cli", [PODMAN], indirect=True)  # another engine hears of every death itself
def test_one_that_was_killed_with_its_monitor_is_made_anew(cli: Cli) -> None:
    """As by a host without memory: podman takes it for running ever after, and can neither stop nor start it."""
    assert cli.up().code == 0
    uuid = cli.run("status", "--json").data["server_uuid"]
    kill_with_monitor(cli)
    again = cli.up("--json")
    assert again.code == 0, again.out
    assert again.data["changes"] == ["server recreated"]
    assert cli.run("status", "--json").data["server_uuid"] == uuid
    kill_with_monitor(cli)
    for verb in ("restart", "start"):  # a stop that fails may still have podman find out that it has ended
        done = cli.run(verb)
        assert done.code in (0, 4)
        if done.code:
            assert f"deployer up --name {cli.name} makes it anew" in done.err
            assert two_lines(done)
    assert cli.up().code == 0
    assert cli.run("status", "--json").data["server_uuid"] == uuid
    assert containers(cli) == [cli.name]


def test_a_server_that_is_slow_is_waited_for(cli: Cli) -> None:
    """It is frozen in the middle of its start, longer than any single question may take."""
    running = subprocess.Popen(
        cli.argv(*cli.up_words("--json")), env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=cli.home
    )
    deadline = time.monotonic() + 180
    while subprocess.run([cli.engine, "pause", cli.name], capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline
        assert running.poll() is None
    time.sleep(4)
    asked(cli, "unpause", cli.name)
    out, _ = running.communicate(timeout=120)
    assert running.returncode == 0, out
    assert cli.run("status").code == 0


def test_a_server_that_never_answers_is_given_up(cli: Cli) -> None:
    command = "[/usr/bin/python3, -c, 'import socket, time; s = socket.create_server((\"\", 3141)); time.sleep(600)']"
    done = cli.up("--image", BASE, "--set", f"image.command={command}", "--timeout", "4")
    assert done.code == 6
    assert "at stage api" in done.err
    assert two_lines(done)
    assert containers(cli) == []


def test_what_was_kept_after_a_failure_does_not_run_on(cli: Cli) -> None:
    done = cli.up("--image", BASE, "--set", "image.command=[/bin/sh, -c, echo last words; exit 3]", "--keep")
    assert done.code == 6
    assert asked(cli, "inspect", "--format={{.State.Status}}", cli.name) == "exited"
    assert "last words" in cli.run("logs", "--engine", cli.engine).out
    assert cli.run("down", "--engine", cli.engine, "--purge", "--yes").code == 0
    assert containers(cli) == []
