"""The server process: first boot, identity, refusals, signals, and what a kill at any moment leaves."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployer import __version__
from tests.plain_devpi import PASSWORD, PlainDevpi
from tests.server_process import COMMAND, PATIENCE, Server, auth_header, login, request
from tests.torn import leave_hot_journal, truncate

pytestmark = pytest.mark.server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """An empty place for a server: nothing was started yet."""
    it = Server(tmp_path / "server")
    try:
        yield it
    finally:
        it.end()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server directory after a first boot, with one user, and a clean stop."""
    it = Server(tmp_path_factory.mktemp("template") / "server")
    try:
        it.start()
        assert request(it.port, "PUT", "/alice", body={"password": "correct horse"}, headers=it.auth)[0] == 201
        assert it.send(signal.SIGTERM) == 0
    finally:
        it.end()
    return it.serverdir


@pytest.fixture
def used(template: Path, server: Server) -> Server:
    """A stopped server with data."""
    shutil.copytree(template, server.serverdir)
    return server


def contents(directory: Path) -> dict[str, bytes]:
    """All files but the lock, which holds the pid of the server that took it last."""
    found = {str(path.relative_to(directory)): path for path in directory.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != ".deployer/lock"}


# First boot


def test_no_answer_precedes_the_password(server: Server) -> None:
    server.launch()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            status, _ = login(server.port, "")
            break
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < deadline, server.output
    assert status in (401, 403)
    assert login(server.port, server.password)[0] == 200


def test_devpi_configuration_of_the_user_is_not_obeyed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    place = server.serverdir.with_name("config") / "devpi-server"
    place.mkdir(parents=True)
    settings = "outside-url: http://elsewhere.example.com\n  offline-mode: true\n  role: replica\n  storage: nothing"
    (place / "devpi-server.yml").write_text(f"devpi-server:\n  {settings}\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place.parent))
    server.start()
    answer = request(server.port, "GET", "/+api")[1]["result"]
    assert answer["login"] == f"http://127.0.0.1:{server.port}/+login"
    status = request(server.port, "GET", "/+status", headers=server.auth)[1]["result"]
    assert status["role"] != "REPLICA"
    done = subprocess.run([*COMMAND, "fsck", "--serverdir", str(server.serverdir)], capture_output=True, check=False)
    assert b"nothing" not in done.stdout + done.stderr


def test_first_boot_leaves_private_files_and_no_index(server: Server) -> None:
    server.start()
    for name, least in (("root-password", 40), ("secret", 32), ("proof-key", 64)):
        path = server.private / name
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.read_text().strip()) >= least
    assert bytes.fromhex((server.private / "proof-key").read_text().strip())
    assert request(server.port, "GET", "/root")[1]["result"]["indexes"] == {}
    assert (server.serverdir / ".serverversion").read_text() == "4"


def test_a_stranger_may_not_make_a_user(server: Server) -> None:
    server.start()
    assert request(server.port, "PUT", "/mallory", body={"password": "x"})[0] == 403
    assert request(server.port, "GET", "/mallory")[0] == 404


def test_nobody_else_may_read_a_file_whatever_the_umask(server: Server) -> None:
    server.start(umask=0)
    assert request(server.port, "PUT", "/alice", body={"password": "correct horse"}, headers=server.auth)[0] == 201
    modes = {}
    for path in (server.serverdir, *server.serverdir.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # devpi replaces some of its files as it goes
            modes[path] = (path.resolve() if path.is_symlink() else path).lstat().st_mode  # a link has no mode
    assert len(modes) > 6
    assert [path for path, mode in modes.items() if mode & 0o077] == []


def test_secrets_are_in_no_log_no_argv_and_no_environment(server: Server) -> None:
    process = server.start().process
    assert process is not None
    assert server.auth
    secrets = [(server.private / name).read_text().strip() for name in ("root-password", "secret", "proof-key")]
    places = {"log": server.output}
    if sys.platform == "linux":
        places |= {name: Path(f"/proc/{process.pid}/{name}").read_text() for name in ("cmdline", "environ")}
    for name, text in places.items():
        assert text, name
        assert not [secret for secret in secrets if secret in text], name


# A kill at the moment that the first argument names: a file operation, or a line of the log.
KILLED = (
    sys.executable,
    "-c",
    """
import logging, os, signal, sys
point = sys.argv.pop(1)
def reached(what):
    if point in what:
        os.kill(os.getpid(), signal.SIGKILL)
events = {"open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect"}
sys.addaudithook(lambda event, args: reached(f"{event} {args!r}") if event in events else None)
handle = logging.Logger.handle
def told(self, record):
    reached(record.getMessage())
    handle(self, record)
logging.Logger.handle = told
from deployer.server.__main__ import main
sys.exit(main())
""",
)


@pytest.mark.parametrize(
    "point",
    [
        "/.deployer/lock",
        "/.deployer/secret",
        "/.deployer/.proof-key.new', '",  # the rename
        "/.deployer/first-boot",
        "/.deployer/.root-password.new', '",
        "/.serverversion",
        "generated uuid",
        "wrote nodeinfo",
        "DB: Creating schema",
        "created user 'root'",
        "fswriter0: committed at 0",
        "os.remove ('{serverdir}/.deployer/first-boot'",
        "/.deployer/running",
        "Using secret file",
    ],
)
def test_a_first_boot_that_was_killed_is_finished_by_the_next_start(server: Server, point: str) -> None:
    words = (*KILLED, point.format(serverdir=server.serverdir))
    assert server.launch(command=words).wait(PATIENCE) == -signal.SIGKILL, server.output
    server.start()
    assert login(server.port, "")[0] in (401, 403)
    assert login(server.port, server.password)[0] == 200
    assert not (server.private / "first-boot").exists()


# Identity


def test_it_proves_that_it_runs_on_this_directory(server: Server) -> None:
    server.start()
    nonce = "0123456789abcdef" * 2
    status, answer = request(server.port, "GET", "/+deployer", headers={"X-Deployer-Nonce": nonce})
    assert status == 200
    key = bytes.fromhex((server.private / "proof-key").read_text().strip())
    expected = hmac.new(key, f"{nonce}:{answer['uuid']}".encode(), hashlib.sha256).hexdigest()
    assert answer["proof"] == expected
    assert answer["uuid"] in (server.serverdir / ".nodeinfo").read_text()
    assert answer["version"] == __version__
    assert answer["server_version"].startswith("6.")
    assert answer["default_mirror_url"].startswith("https://")
    assert (answer["web"], answer["offline"], answer["writable"]) == (False, False, True)
    assert answer["free_bytes"] > 0


def test_it_says_how_it_was_started_and_proves_nothing_unasked(server: Server) -> None:
    server.start("--offline", "--web", "devpi-web")
    status, answer = request(server.port, "GET", "/+deployer")
    assert status == 200
    assert (answer["web"], answer["offline"]) == (True, True)
    assert "proof" not in answer


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files by prlimit")
def test_a_write_canary_tells_a_full_disk(used: Server) -> None:
    process = used.start().process
    assert process is not None
    import resource

    # To the process, a disk that takes no byte more; Python ignores SIGXFSZ.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    assert request(used.port, "GET", "/+api")[0] == 200
    assert request(used.port, "GET", "/+deployer")[1]["writable"] is False


# Starting again


def test_tokens_outlive_a_restart(used: Server) -> None:
    used.start()
    token = login(used.port, used.password)[1]["result"]["password"]
    assert used.send(signal.SIGTERM) == 0
    used.start()
    assert request(used.port, "PUT", "/bob", body={"password": "x" * 12}, headers=auth_header(token))[0] == 201


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(used: Server, number: signal.Signals) -> None:
    process = used.start().process
    assert process is not None
    assert (used.private / "running").exists()
    process.send_signal(number)
    process.send_signal(signal.SIGTERM)  # another one is harmless
    assert process.wait(PATIENCE) == 0, used.output
    assert not (used.private / "running").exists()
    assert "Traceback" not in used.output


def test_a_hot_journal_is_rolled_back(used: Server) -> None:
    leave_hot_journal(used.serverdir / ".sqlite")
    used.start()
    assert request(used.port, "GET", "/alice")[1]["result"]["username"] == "alice"
    assert login(used.port, used.password)[0] == 200


def test_what_was_acknowledged_outlives_kills(server: Server) -> None:
    server.start()
    acknowledged = []
    for round_ in range(3):
        auth = server.auth
        for number in range(5):
            name = f"user{round_}{number}"
            assert request(server.port, "PUT", f"/{name}", body={"password": "x" * 12}, headers=auth)[0] == 201
            acknowledged.append(name)
        server.end()
        server.start()
    assert set(acknowledged) <= set(request(server.port, "GET", "/")[1]["result"])


def test_litter_of_a_full_disk_is_cleared(used: Server) -> None:
    for number in range(3):
        (used.serverdir / f"-.nodeinfo{number}").touch()
    used.start()
    assert list(used.serverdir.glob("-.nodeinfo*")) == []


# Refusals


def test_a_second_server_on_the_directory_is_refused(used: Server) -> None:
    used.start()
    second = Server(used.serverdir)
    result = subprocess.run(
        [sys.executable, "-m", "deployer.server", *second.words], capture_output=True, text=True, timeout=PATIENCE
    )
    assert result.returncode == 5
    assert "another server" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert used.answers()


def flip(database: Path) -> None:
    with database.open("r+b") as stream:
        stream.seek(4096)  # the head of the second page
        head = bytes(byte ^ 0xFF for byte in stream.read(8))
        stream.seek(4096)
        stream.write(head)


def empty(database: Path) -> None:
    database.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink], ids=["truncated", "flipped", "empty", "gone"])
def test_a_damaged_database_is_left_as_it_is(used: Server, damage: object) -> None:
    assert callable(damage)
    damage(used.serverdir / ".sqlite")
    before = contents(used.serverdir)
    code, output = used.refuses()
    assert code == 9, output
    assert "Traceback" not in output
    assert "restore a backup" in output
    assert contents(used.serverdir) == before


def test_data_without_its_identity_is_not_initialised_over(used: Server) -> None:
    (used.serverdir / ".nodeinfo").unlink()
    before = contents(used.serverdir)
    code, _ = used.refuses()
    assert code == 9
    assert contents(used.serverdir) == before


def test_a_foreign_directory_is_refused(server: Server) -> None:
    server.serverdir.mkdir()
    (server.serverdir / "thesis.txt").write_text("all my work")
    code, output = server.refuses()
    assert code == 11
    assert "not devpi's" in output
    assert contents(server.serverdir) == {"thesis.txt": b"all my work"}


def test_another_layout_is_refused(used: Server) -> None:
    (used.serverdir / ".serverversion").write_text("5")
    code, output = used.refuses()
    assert code == 11
    assert "layout" in output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_refused(used: Server) -> None:
    used.serverdir.chmod(0o500)
    try:
        code, output = used.refuses()
    finally:
        used.serverdir.chmod(0o700)
    assert code == 11
    assert "Traceback" not in output


def test_a_port_that_is_taken_is_told_in_a_line(used: Server) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", used.port))
        listener.listen()
        code, output = used.refuses()
    assert code == 5
    assert "Traceback" not in output
    told = [line for line in output.splitlines() if line.startswith("deployer:")]
    assert len(told) == 2
    assert str(used.port) in told[0]


def test_logging_in_as_root_takes_no_memory_that_a_chosen_password_takes(used: Server) -> None:
    process = used.start().process
    assert process is not None

    def most() -> int:
        """MiB that it had at its worst moment (proc(5))."""
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) // 1024

    at_start = most()
    assert login(used.port, used.password)[0] == 200
    after_root = most()
    body = {"user": "alice", "password": "correct horse"}
    assert request(used.port, "POST", "/+login", body=body)[0] == 200
    assert after_root - at_start < 32
    assert most() - after_root > 32


# Adoption of data that was made without us


def test_an_empty_root_password_is_replaced_before_the_port_opens(server: Server) -> None:
    subprocess.run(
        [sys.executable, "-c", "from devpi_server.init import init; init()", "--serverdir", str(server.serverdir)],
        check=True,
        capture_output=True,
    )
    server.start()
    assert login(server.port, "")[0] in (401, 403)
    assert login(server.port, server.password)[0] == 200
    assert "pypi" in request(server.port, "GET", "/root")[1]["result"]["indexes"]


def test_a_root_password_of_the_users_own_is_kept(devpi_stopped: PlainDevpi, server: Server) -> None:
    shutil.copytree(devpi_stopped.serverdir, server.serverdir)
    server.start()
    assert login(server.port, PASSWORD)[0] == 200
    assert not (server.private / "root-password").exists()


# Small verbs


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployer.server", *words], input=stdin, capture_output=True, text=True, timeout=PATIENCE
    )


def test_the_password_is_shown_and_set_by_pipes(used: Server) -> None:
    where = ("--serverdir", str(used.serverdir))
    assert run("secret", "show", "root", *where).stdout == used.password + "\n"
    assert run("secret", "set", "root", *where, stdin="another one\n").returncode == 0
    assert used.password == "another one"
    assert (used.private / "root-password").stat().st_mode & 0o777 == 0o600
    assert run("secret", "set", "root", *where, stdin="\n").returncode != 0
    assert used.password == "another one"


def test_a_check_finds_what_a_start_would(used: Server) -> None:
    where = ("--serverdir", str(used.serverdir))
    assert run("check", *where).returncode == 0
    with sqlite3.connect(used.serverdir / ".sqlite") as connection:
        assert connection.execute("pragma quick_check").fetchone() == ("ok",)
    truncate(used.serverdir / ".sqlite")
    result = run("check", *where)
    assert result.returncode == 9
    assert "Traceback" not in result.stderr


def test_health_is_an_exit_code(used: Server) -> None:
    where = ("--port", str(used.port))
    assert run("health", *where).returncode == 1
    used.start()
    assert run("health", *where).returncode == 0
