"""Changes that nobody notices: pip and uv install all the time, and no installation fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
import yaml

from tests.engines import BASE, need
from tests.front import PIP as PIP_HEADERS
from tests.front import ask, upload
from tests.integration.cli import Cli
from tests.integration.test_begins_anew import never_stopping
from tests.server_process import PATIENCE, Server, auth_header, login
from tests.upstream import make_wheel

BESIDE = Path(sys.executable).parent
PIP = (sys.executable, "-I", "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--no-cache-dir")
UV = (str(BESIDE / "uv"), "--no-config", "pip", "install", "--no-cache", "--python", sys.executable)


class Deployed:
    """A deployment whose profile changes, with one package that is installed again and again."""

    def __init__(self, home: Path, engine: str) -> None:
        self.profile = home / "team.yaml"
        self.cli = Cli(home=home, engine=engine, extra={"DEPLOYER_PROFILE": str(self.profile)})
        self.keys: dict[str, Any] = {}

    def up(self, **changed: Any) -> dict[str, Any]:
        self.keys |= changed
        where = {"engine": self.cli.engine, "data": str(self.cli.data), "image": {"base": BASE}}
        network = {"port": self.cli.port, "mode": "host" if self.cli.engine == "process" else "bridge"}
        whole = {"extends": "default", **where, "network": network, "server": self.keys}
        self.profile.write_text(yaml.safe_dump(whole))
        done = self.cli.run("up", "--no-pip", "--json", timeout=900)
        assert done.code == 0, done.err
        return done.data

    def begin(self) -> None:
        self.up()
        password = self.cli.run("secret", "show", "root").out.strip()
        auth = auth_header(login(self.cli.port, password)[1]["result"]["password"])
        server = Server(self.cli.data, port=self.cli.port)
        upload(server, "demo", "1.0", make_wheel("demo", "1.0").content, auth=auth)
        page = json.loads(ask(self.cli.port, "/root/dev/+simple/demo/", PIP_HEADERS).plain)
        self.file = urljoin("/root/dev/+simple/demo/", page["files"][0]["url"])

    @contextmanager
    def installing(self, *clients: Sequence[str]) -> Iterator[list[str]]:
        """So many clients that never stop; what the failed ones said. Each installs once more after the block."""
        failed: list[str] = []
        over = threading.Event()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        index = f"{self.cli.url}/root/dev/+simple/"

        def client(number: int, words: Sequence[str]) -> None:
            last, round_ = False, 0
            while not last:
                last, round_ = over.is_set(), round_ + 1
                target = self.cli.home / f"target-{number}-{round_}"
                command = (*words, "--no-deps", "--index-url", index, "--target", str(target), "demo")
                done = subprocess.run(command, env=kept, capture_output=True, text=True, check=False, timeout=PATIENCE)
                if done.returncode:
                    failed.append(f"{words[0]}: {done.stdout[-500:]}{done.stderr[-1500:]}")

        with ThreadPoolExecutor(len(clients)) as pool:
            running = [pool.submit(client, *one) for one in enumerate(clients)]
            try:
                yield failed
            finally:
                over.set()
            for one in running:
                one.result(PATIENCE)


@pytest.fixture(scope="module", params=["process", "docker", "podman", "nerdctl"])
def deployed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    need(request.param)
    home = tmp_path_factory.mktemp("home")
    home.chmod(0o755)  # the container's user goes through it
    made = Deployed(home, request.param)
    try:
        made.begin()
        yield made
    finally:
        made.cli.clean()


EVERYWHERE = pytest.mark.parametrize(
    "deployed",
    [
        pytest.param("process", marks=pytest.mark.server),
        pytest.param("docker", marks=pytest.mark.docker),
        pytest.param("podman", marks=[pytest.mark.podman, pytest.mark.endurance]),
        pytest.param("nerdctl", marks=[pytest.mark.nerdctl, pytest.mark.endurance]),
    ],
    indirect=True,
)


@EVERYWHERE
def test_a_changed_key_and_a_restart_fail_no_installation(deployed: Deployed) -> None:
    calls = {
        "page": lambda: ask(deployed.cli.port, "/root/dev/+simple/demo/", PIP_HEADERS),
        "file": lambda: ask(deployed.cli.port, deployed.file),
        "devpi": lambda: ask(deployed.cli.port, "/+api", {"Accept": "application/json"}),
    }
    with deployed.installing(PIP, UV) as failed, never_stopping(calls) as bad:
        assert deployed.up(threads=20)["server"] == "changed"
        assert deployed.up()["server"] == "unchanged"
        assert deployed.cli.run("restart").code == 0
    assert failed == []
    assert bad == {"page": [], "file": [], "devpi": []}
    # The settings are those of the profile after a full stop, too, and a key that is set back is changed again.
    assert deployed.cli.run("stop").code == 0
    assert deployed.up()["server"] == "started"
    assert "using 20 threads" in deployed.cli.run("logs", "-n", "200").out
    assert deployed.up(threads=50)["server"] == "changed"


@pytest.mark.server
@pytest.mark.parametrize("deployed", ["process"], indirect=True)
def test_a_process_that_is_replaced_fails_no_installation(deployed: Deployed) -> None:
    calls = {"page": lambda: ask(deployed.cli.port, "/root/dev/+simple/demo/", PIP_HEADERS)}
    with deployed.installing(PIP, UV) as failed, never_stopping(calls) as bad:
        assert deployed.up(log_max_files=4)["server"] == "recreated"
    assert failed == []
    assert bad == {"page": []}


@pytest.mark.endurance
@EVERYWHERE
def test_eight_clients_that_never_stop_notice_no_change(deployed: Deployed) -> None:
    with deployed.installing(*[PIP, UV] * 4) as failed:
        for number in range(5):
            deployed.up(threads=20 + number)
            assert deployed.cli.run("restart").code == 0
    assert failed == []


@pytest.mark.endurance
@pytest.mark.parametrize(
    "engine", [pytest.param("process", marks=pytest.mark.server), pytest.param("docker", marks=pytest.mark.docker)]
)
def test_eight_clients_that_never_stop_notice_no_upgrade(
    request: pytest.FixtureRequest, engine: str, tmp_path: Path
) -> None:
    need(engine)
    tmp_path.chmod(0o755)
    made = Deployed(tmp_path, engine)
    new = Cli(home=tmp_path, engine=engine, extra=made.cli.extra, port=made.cli.port, name=made.cli.name)
    if engine == "process":
        new.python = request.getfixturevalue("python7")
    try:
        made.begin()
        if engine != "process":  # before the clients begin: it takes minutes
            assert new.run("image", "build", "--engine", engine, "--set", "server.version=7").code == 0
        calls = {"page": lambda: ask(made.cli.port, "/root/dev/+simple/demo/", PIP_HEADERS)}
        with made.installing(*[PIP, UV] * 4) as failed, never_stopping(calls) as bad:
            done = new.run("upgrade", "--to", "7", "--json", timeout=900)
            assert done.code == 0, done.out
            back = new.run("rollback", "--json", timeout=900)
            assert back.code == 0, back.out
        assert failed == []
        if engine == "process":  # whose public sockets are handed over
            assert bad == {"page": []}
    finally:
        made.cli.clean()
