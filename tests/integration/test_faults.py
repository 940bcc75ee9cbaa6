"""What goes wrong around a deployment: told in a line, mended where it can be, and nothing uploaded is lost."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.engines import need
from tests.hostile import HostileServer, always, by_path, devpi_reply, reply
from tests.integration.cli import Cli, Done
from tests.integration.test_crash import ROOT, Point, crash_argv
from tests.integration.test_up import fetched, upload, wait_ready
from tests.plain_devpi import PlainDevpi
from tests.upstream import make_wheel

PROCESS = pytest.param("process", marks=pytest.mark.server)
DOCKER = pytest.param("docker", marks=pytest.mark.docker)
NOWHERE = "http://127.0.0.1:9/simple/"
PATIENCE = 180.0


@pytest.fixture
def cli(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cli]:
    """A user who has nothing yet; on the process engine unless the test says otherwise."""
    engine = getattr(request, "param", "process")
    need(engine)
    made = Cli(home=tmp_path, engine=engine, upstream=NOWHERE)
    try:
        yield made
    finally:
        made.clean()


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A deployment on docker that the tests share; each leaves it ready."""
    need("docker")
    made = Cli(home=tmp_path_factory.mktemp("boxed"), engine="docker", upstream=NOWHERE)
    try:
        up = made.up("--no-pip")
        assert up.code == 0, up.err
        yield made
    finally:
        made.clean()


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def in_two_lines(done: Done) -> bool:
    """One line of cause and one of cure, whatever stands between them."""
    starts = [line.split(" ", 1)[0] for line in done.err.splitlines()]
    return (starts.count("error"), starts.count("hint")) == (1, 1)


def nothing_made(cli: Cli) -> bool:
    """No data, no client file, no state but the lock; no container."""
    files = [path for path in cli.home.rglob("*") if path.is_file() and path.name != "lock"]
    boxes = docker("ps", "--all", "--quiet", f"--filter=name={cli.name}") if cli.engine == "docker" else ""
    return not files and not cli.data.exists() and not boxes


def login(cli: Cli, password: str) -> int:
    answer = httpx.post(
        f"{cli.url}/+login",
        json={"user": "root", "password": password},
        headers={"Accept": "application/json"},
        trust_env=False,
        timeout=180,
    )
    return answer.status_code


def root_password(cli: Cli) -> str:
    return cli.run("secret", "show", "root").out.strip()


# Somebody else at the port


@pytest.mark.parametrize("cli", [PROCESS, DOCKER], indirect=True)
def test_a_taken_port_is_told_with_its_owner_before_anything_is_made(cli: Cli) -> None:
    with HostileServer(always(reply(b"{}")), port=cli.port) as stranger:
        done = cli.up()
    assert done.code == 5
    assert f"port {cli.port} is taken by pid {os.getpid()} (" in done.err
    assert in_two_lines(done)
    assert nothing_made(cli)
    assert stranger.received == []


def pids(cli: Cli) -> tuple[int, int]:
    """The supervisor of a deployment and the server below it."""
    listed = subprocess.check_output(["ps", "-ewwo", "pid=,ppid=,args="], text=True).splitlines()
    ours = [line.split(None, 2) for line in listed if f"--serverdir {cli.data}" in line]
    (supervisor,) = [int(pid) for pid, _, words in ours if " supervise " in words]
    (server,) = [int(pid) for pid, parent, _ in ours if int(parent) == supervisor]
    return supervisor, server


def impostor(cli: Cli, uuid: str) -> HostileServer:
    """What says that all is well to every request, as a devpi would, under our own server's uuid."""
    identity = reply(
        json.dumps({"uuid": uuid, "server_version": "6.20.3", "proof": "0" * 64, "writable": True}).encode()
    )
    answers = {
        "GET /+api": devpi_reply("apiconfig", {"authstatus": ["ok", "root", []]}),
        "GET /+deployer": identity,
        "GET /": devpi_reply("list:userconfig", {"root": {"username": "root", "indexes": {}}}),
    }
    token = devpi_reply("proxyauth", {"password": "token", "expiration": 36000})
    return HostileServer(by_path(answers, otherwise=token), port=cli.port)


@pytest.mark.server
def test_an_impostor_at_our_port_gets_no_password(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    password, uuid = root_password(cli), cli.run("status", "--json").data["server_uuid"]
    supervisor, server = pids(cli)
    # To its engine the deployment runs on: its supervisor lives, and is not there to see what happened.
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    until(lambda: free(cli.port))
    try:
        with impostor(cli, uuid) as stranger:
            for words in ((), ("--set", "users.carol={}"), ("--set", "server.threads=9", "--timeout", "5")):
                done = cli.up("--no-pip", *words)
                assert done.code in (5, 6), done.err
                assert in_two_lines(done)
        assert stranger.received
        for secret in (password.encode(), b64encode(f"root:{password}".encode()), b"+login"):
            assert secret not in stranger.everything
    finally:
        signal_if_there(supervisor, signal.SIGCONT)
    healed = cli.up("--no-pip")
    assert healed.code == 0, healed.err
    assert (root_password(cli), cli.run("status", "--json").data["server_uuid"]) == (password, uuid)


def free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def signal_if_there(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@pytest.mark.server
def test_another_devpi_at_our_port_is_left_as_it_is(cli: Cli, devpi_stopped: PlainDevpi) -> None:
    assert cli.up("--no-pip").code == 0
    supervisor, server = pids(cli)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    until(lambda: free(cli.port))
    devpi_stopped.port = cli.port
    devpi_stopped.start()
    done = cli.up("--no-pip")
    assert done.code == 5
    assert "another devpi answers" in done.err
    status = cli.run("status")
    assert status.code == 6
    assert "it does not use the data of" in status.err
    users = httpx.get(f"{cli.url}/", headers={"Accept": "application/json"}, trust_env=False, timeout=180).json()[
        "result"
    ]
    assert {name: user["indexes"] for name, user in users.items()} == {"root": {}}
    devpi_stopped.stop()
    os.kill(supervisor, signal.SIGCONT)
    assert cli.up("--no-pip").code == 0


@pytest.mark.server
@pytest.mark.parametrize("body", [b"42", b"[]", b'"all is well"', b'{"result": 7}', b"<html>"], ids=repr)
def test_status_of_what_answers_anything(cli: Cli, body: bytes) -> None:
    assert cli.up("--no-pip").code == 0
    supervisor, server = pids(cli)
    os.kill(supervisor, signal.SIGSTOP)
    os.kill(server, signal.SIGKILL)
    until(lambda: free(cli.port))
    try:
        with HostileServer(always(reply(body)), port=cli.port):
            assert cli.run("status").code == 6
            assert cli.up("--no-pip", "--timeout", "5").code in (5, 6)
    finally:
        os.kill(supervisor, signal.SIGCONT)


# A change that can't come up


@pytest.mark.docker
def test_a_change_that_runs_out_of_memory_is_undone(boxed: Cli, tmp_path: Path) -> None:
    wheel = make_wheel("acme", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    upload(boxed, root_password(boxed), tmp_path / wheel.filename)
    before = docker("inspect", "--format={{.Id}} {{.HostConfig.Memory}}", boxed.name)
    done = boxed.up("--no-pip", "--set", "server.memory=16m")
    assert done.code == 6
    assert "out of memory (OOM-killed)" in done.err
    assert "server.memory" in done.err
    # Whoever is told so need not wait for it.
    assert f"rollback  {boxed.name} runs again as before at {boxed.url}" in done.err.splitlines()
    assert in_two_lines(done)
    assert boxed.run("status").code == 0
    assert docker("inspect", "--format={{.Id}} {{.HostConfig.Memory}}", boxed.name) == before
    assert fetched(boxed, "acme", tmp_path / "fetched") == wheel.content
    assert docker("ps", "--all", "--format={{.Names}}", f"--filter=name={boxed.name}") == boxed.name


@pytest.mark.docker
def test_what_was_acknowledged_outlives_kills_from_outside(boxed: Cli, tmp_path: Path) -> None:
    """The server is killed again and again while wheels are uploaded; docker starts it again."""
    password = root_password(boxed)
    stop = threading.Event()
    acknowledged: list[Path] = []

    def uploads() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            wheel = make_wheel("burst", f"1.{number}")
            path = tmp_path / wheel.filename
            path.write_bytes(wheel.content)
            try:
                upload(boxed, password, path)
            except (httpx.HTTPError, AssertionError):
                time.sleep(0.1)
            else:
                acknowledged.append(path)

    writer = threading.Thread(target=uploads)
    writer.start()
    try:
        for _ in range(3):
            wanted = len(acknowledged) + 3
            until(lambda wanted=wanted: len(acknowledged) >= wanted)  # type: ignore[misc]
            pid = int(docker("inspect", "--format={{.State.Pid}}", boxed.name))
            assert pid > 1  # a server that is down at this moment has no number, and 0 would be this test itself
            os.kill(pid, signal.SIGKILL)
    finally:
        stop.set()
        writer.join()
    wait_ready(boxed)
    assert int(docker("inspect", "--format={{.RestartCount}}", boxed.name)) >= 3
    page = httpx.get(f"{boxed.url}/root/dev/+simple/burst/", trust_env=False, timeout=180).text
    assert [path.name for path in acknowledged if path.name not in page] == []
    # A newer one may be there: stored, and killed before it said so.
    last = acknowledged[-1]
    assert fetched(boxed, f"burst=={last.name.split('-')[1]}", tmp_path / "last") == last.read_bytes()
    done = boxed.up("--no-pip", "--json")
    assert (done.code, done.data["changes"]) == (0, [])


def runs(pid: str) -> bool:
    """Whether a process is there, and more than a corpse that nobody has buried yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Machine:
    """A host for a docker engine: all that runs on it ends at the same moment when its plug is pulled.

    It is a namespace of processes, mounts and network; the last is not for the test's comfort: an engine without a
    bridge removes the one that it finds, which would be that of this host's own engine.
    """

    def __init__(self, directory: Path) -> None:
        self._disk, self._run = directory / "disk", directory / "run"
        self.docker_host = f"unix://{self._run}/docker.sock"

    def boot(self) -> None:
        shutil.rmtree(self._run, ignore_errors=True)  # it is in memory
        self._run.mkdir(parents=True)
        engine = (
            *("dockerd", f"--host={self.docker_host}", f"--data-root={self._disk}"),
            *(f"--exec-root={self._run}/exec", f"--pidfile={self._run}/pid"),
            *("--bridge=none", "--iptables=false", "--ip-forward=false"),
        )
        with (self._run / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"),
                    *("sh", "-c", 'ip link set lo up && exec "$@"', "boot", *engine),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(lambda: self._answers() or self._process.poll() is not None)
        assert self._process.poll() is None, (self._run / "log").read_text()

    def on_it(self, *words: str) -> list[str]:
        """The command, with this machine's network."""
        return ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", *words]

    def has(self, image: str) -> None:
        """Give it an image of this host's engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                ["docker", f"--host={self.docker_host}", "load"], stdin=saved.stdout, check=True, capture_output=True
            )

    def pull_the_plug(self) -> None:
        # The machine's first process is the last to go: the kernel ends all others before it.
        listed = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        self._process.wait()
        until(lambda: not any(map(runs, listed)))

    def _answers(self) -> bool:
        asked = ["docker", f"--host={self.docker_host}", "version"]
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0


@dataclass
class Seated(Cli):
    """A user who sits at the machine: loopback is the machine's."""

    machine: Machine = field(kw_only=True)

    def argv(self, *words: str) -> list[str]:
        return self.machine.on_it(*super().argv(*words))


@pytest.fixture
def machine(boxed: Cli) -> Iterator[Machine]:
    """A machine that has our image already."""
    if os.getuid() != 0 or not all(map(shutil.which, ("dockerd", "unshare", "nsenter", "ip"))):
        pytest.skip("an engine of its own needs root, dockerd, util-linux and iproute2")
    # The path of a socket is a hundred characters at most, and the engine appends to this one.
    with TemporaryDirectory(prefix="deployer-") as directory:
        made = Machine(Path(directory))
        made.boot()
        try:
            made.has(docker("inspect", "--format={{.Config.Image}}", boxed.name))
            yield made
        finally:
            made.pull_the_plug()


@pytest.mark.docker
def test_a_deployment_comes_back_after_a_power_cut(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    extra = {"DOCKER_HOST": machine.docker_host}
    cli = Seated(
        home=tmp_path / "home", engine="docker", network="host", upstream=NOWHERE, extra=extra, machine=machine
    )
    words = ("--no-pip", "--set", "users.carol={}")
    up = cli.up(*words)
    assert up.code == 0, up.err
    before = cli.run("status", "--json").data
    machine.pull_the_plug()
    machine.boot()
    # Nobody runs `up`.
    wait_ready(cli)
    after = cli.run("status", "--json").data
    assert (after["server_uuid"], after["indexes"]) == (before["server_uuid"], before["indexes"])
    assert after["started_at"] > before["started_at"]
    assert cli.up(*words, "--json").data["changes"] == []
    cli.clean()
    assert cli.run("status", "--json").data["state"] == "absent"


@pytest.mark.docker
def test_secrets_in_the_last_words_are_blanked(tmp_path: Path) -> None:
    need("docker")
    cli = Cli(home=tmp_path, engine="docker")
    words = "mirroring https://robot:hunter2hunter2@packages.example.com/simple/"
    done = cli.up(
        "--image", "localhost/deployer-test-base:1", "--set", f"image.command=[/bin/sh, -c, 'echo {words}; exit 3']"
    )
    assert done.code == 6
    assert "packages.example.com" in done.err
    assert "hunter2" not in done.err
    assert nothing_made(cli)


# Passwords


@pytest.mark.server
def test_a_root_password_changed_by_hand_is_asked_for_and_never_reset(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    by_hand = "chosen by hand, and long"
    changed = httpx.patch(
        f"{cli.url}/root",
        json={"password": by_hand},
        auth=("root", root_password(cli)),
        headers={"Accept": "application/json"},
        trust_env=False,
        timeout=180,
    )
    assert changed.status_code == 200, changed.text
    # What changes nothing needs no password.
    assert cli.up("--no-pip").code == 0
    refused = cli.up("--no-pip", "--set", "users.carol={}")
    assert refused.code == 7
    assert "deployer secret set --name" in refused.err
    assert in_two_lines(refused)
    refused = cli.up("--no-pip", "--set", "server.threads=9")
    assert refused.code == 7, refused.err
    wait_ready(cli)
    assert login(cli, by_hand) == 200
    assert cli.run("secret", "set", "root", stdin=by_hand + "\n").code == 0
    assert cli.up("--no-pip", "--set", "server.threads=9").code == 0
    assert login(cli, by_hand) == 200


@pytest.mark.server
def test_data_with_an_empty_root_password_is_never_served_with_it(cli: Cli) -> None:
    subprocess.run(
        [sys.executable, "-c", "from devpi_server.init import init; init()", "--serverdir", str(cli.data)],
        check=True,
        capture_output=True,
    )
    running = subprocess.Popen(
        cli.argv(*cli.up_words("--no-pip")), env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cli.home
    )
    answers = []
    over = False
    while not over:  # once more when it is done, for a machine on which nobody else got to run meanwhile
        over = running.poll() is not None
        try:
            answers.append(login(cli, ""))
        except httpx.TransportError:
            time.sleep(0.01)
    assert running.returncode == 0, running.communicate()
    running.communicate()
    assert set(answers) == {401}
    assert login(cli, root_password(cli)) == 200


# Surroundings


PROXIES = {
    name: "http://127.0.0.1:9" for word in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (word, word.lower())
}
POOR = {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "20", "TERM": "dumb"}


@pytest.mark.server
@pytest.mark.parametrize("env", [PROXIES, POOR], ids=["proxies", "poor terminal"])
def test_surroundings_do_no_harm(cli: Cli, env: dict[str, str]) -> None:
    up = cli.up(env=env)
    assert up.code == 0, up.err
    assert up.out == f"{cli.url}/root/dev/+simple/\n"
    plan = ("plan", *cli.up_words()[1:])
    for words in (("status",), ("status", "--json"), ("logs", "-n", "3"), plan, ("restart",), ("--help",)):
        done = cli.run(*words, env=env)
        assert done.code == 0, (words, done.err)
    assert cli.up(env=env).code == 0


@pytest.mark.server
def test_nothing_is_asked_where_nobody_can_answer(cli: Cli) -> None:
    assert cli.up("--no-pip").code == 0
    # An input that stays open and says nothing: to read from it would wait for ever.
    with subprocess.Popen(
        cli.argv("down", "--purge"), env=cli.env, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cli.home
    ) as running:
        assert running.wait(PATIENCE) == 11
        assert running.stderr is not None
        assert "--yes" in running.stderr.read()
    assert cli.run("status").code == 0


@pytest.mark.server
def test_a_terminal_that_goes_away_undoes_what_was_begun(cli: Cli) -> None:
    """Its window is closed: the kernel sends SIGHUP, and whatever is written to it fails."""
    words = cli.up_words()
    cli.extra["PYTHONPATH"] = str(ROOT)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cli.home)
        # It stops, and goes on when the terminal has gone: the kernel wakes whom it tells of that.
        argv = crash_argv(Point("connect"), "SIGSTOP", words)
        os.execve(argv[0], argv, cli.env)  # noqa: S606
    assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
    assert cli.data.exists()
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert nothing_made(cli)


# Readers who have seen enough


def unread(cli: Cli, *words: str, stream: str) -> subprocess.CompletedProcess[str]:
    """A command of which nobody reads one of its outputs."""
    read, write = os.pipe()
    os.close(read)
    out, err = (write, subprocess.PIPE) if stream == "stdout" else (subprocess.PIPE, write)
    try:
        return subprocess.run(
            cli.argv(*words),
            env=cli.env,
            stdout=out,
            stderr=err,
            text=True,
            check=False,
            cwd=cli.home,
            timeout=PATIENCE,
        )
    finally:
        os.close(write)


@pytest.mark.server
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_does_not_undo_the_work(cli: Cli, stream: str) -> None:
    """As of ``deployer up --json | true`` and ``deployer up 2>&1 | head -1``."""
    done = unread(cli, *cli.up_words(*["--json"] * (stream == "stdout")), stream=stream)
    assert (done.returncode, done.stderr or "") == (0, "")
    assert cli.run("status").code == 0
    for words in (("logs",), ("status",)):
        done = unread(cli, *words, stream=stream)
        assert (done.returncode, done.stderr or "") == (0, ""), words
    # Its upstream is nowhere, so that the main job would not work; but it says so as it goes on, as `logs` does, and
    # ends with its reader.
    assert unread(cli, "doctor", stream=stream).returncode == (0 if stream == "stdout" else 9)
    # What is wrong is no less wrong when nobody reads of it.
    assert unread(cli, "status", "--json", "--name", "nobody", stream=stream).returncode == 6


def test_an_interrupt_has_one_exit_code_wherever_it_comes() -> None:
    """Also where Python runs a text, as it does to make a dataclass."""
    script = """
from types import SimpleNamespace
from deployer.cli import execute
run = lambda options, ui: exec("raise KeyboardInterrupt")
raise SystemExit(execute("up", run, SimpleNamespace(name="devpi", json=False, quiet=True, debug=False)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, "interrupted" in done.stderr) == (130, True)
