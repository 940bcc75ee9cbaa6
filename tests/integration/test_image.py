"""Our image, built and run for real, as hardened as a deployment is."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urljoin

import pytest

from deployer.clients import pip
from deployer.clients.client import Account
from deployer.engines import open_engine
from deployer.image import PipSettings, build_digest, prepare
from deployer.operations.prepare import is_ours
from deployer.spec import LABEL_BUILD, EngineName
from tests.engines import BASE, need
from tests.front import PIP, ask, make_indexes, noise, upload
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, Server, auth_header, login, request

pytestmark = pytest.mark.docker

TAG = "localhost/deployer-test-image:1"
BARE = "localhost/deployer-test-bare:1"
UID = 12345
"""A user that the image knows nothing of."""
HARDENED = (
    *("--read-only", "--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m", "--cap-drop=ALL"),
    *("--security-opt=no-new-privileges", "--pids-limit=128", "--memory=256m", "--memory-swap=256m"),
)


def docker(*words: str, check: bool = True) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert not check or done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Our image under a name of the tests' own, on a base without bytecode, as Python's official ones are."""
    need("docker")
    images = open_engine(EngineName.DOCKER).images
    assert images is not None
    base = tmp_path_factory.mktemp("base")
    remove = "find / -xdev -type d -name __pycache__ -prune -exec rm -rf {} +"
    (base / "Dockerfile").write_text(f"FROM {BASE}\nRUN {remove}\n")
    docker("build", f"--tag={BARE}", str(base))
    settings = PipSettings(**pip.build_settings(pip.read_config(Account.of(os.environ)), ours=is_ours))
    made = prepare(tmp_path_factory.mktemp("build"), base=BARE, pip=settings, secrets_ok=images.builds_with_secrets())
    lines: list[str] = []
    built = images.build(replace(made, tag=TAG), lines.append)
    assert lines
    assert built.labels[LABEL_BUILD] == build_digest(BARE)
    return TAG


@dataclass
class Boxed:
    """A container of the image on a directory of this host."""

    image: str
    server: Server
    name: str = field(default_factory=lambda: f"deployer-test-{uuid.uuid4().hex[:8]}")

    def run(self, *command: str, options: Sequence[str] = (), network: Sequence[str] = ()) -> None:
        data = f"--mount=type=bind,source={self.server.serverdir},target=/data"
        network = network or (f"--publish=127.0.0.1:{self.server.port}:3141",)
        docker("run", "--detach", f"--name={self.name}", data, *network, *HARDENED, *options, self.image, *command)

    def inspect(self, path: str) -> str:
        return docker("inspect", f"--format={{{{json {path}}}}}", self.name)

    def state(self) -> tuple[str, int, bool]:
        state = json.loads(self.inspect(".State"))
        return state["Status"], state["ExitCode"], state["OOMKilled"]

    def until_it_ends(self) -> int:
        return int(docker("wait", self.name))


@pytest.fixture
def boxed(image: str, tmp_path: Path) -> Iterator[Boxed]:
    tmp_path.chmod(0o755)
    serverdir = tmp_path / "data"
    serverdir.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(serverdir, UID, UID)
    it = Boxed(image, Server(serverdir))
    try:
        yield it
    finally:
        docker("rm", "--force", it.name, check=False)


def user() -> str:
    uid = UID if os.geteuid() == 0 else os.geteuid()
    return f"--user={uid}:{uid}"


def test_it_starts_hardened_as_anybody_and_stops_cleanly(boxed: Boxed) -> None:
    boxed.run(options=(user(),))
    server = boxed.server.wait()
    assert login(server.port, "")[0] in (401, 403)
    token = login(server.port, server.password)[1]["result"]["password"]
    status = docker("exec", boxed.name, "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    docker("exec", boxed.name, "/opt/deployer/bin/python", "-m", "deployer.server", "health", "--serverdir", "/data")

    docker("stop", "--time=60", boxed.name)
    assert boxed.state() == ("exited", 0, False)
    assert not (server.private / "running").exists()
    docker("start", boxed.name)
    server.wait()
    # Tokens live on, and what is there is there.
    assert request(server.port, "PUT", "/alice", body={"password": "x" * 12}, headers=auth_header(token))[0] == 201
    docker("kill", "--signal=TERM", boxed.name)  # as the first process of its container
    assert boxed.until_it_ends() == 0


def test_it_is_in_no_layer_no_history_and_no_inspection(boxed: Boxed) -> None:
    boxed.run(options=(user(),))
    server = boxed.server.wait()
    secrets = [(server.private / name).read_text().strip() for name in ("root-password", "secret", "proof-key")]
    told = [
        docker("inspect", boxed.name),
        docker("image", "inspect", boxed.image),
        docker("history", "--no-trunc", boxed.image),
        docker("logs", boxed.name),
        docker("top", boxed.name, "-eo", "pid,args"),
    ]
    assert not [secret for secret in secrets for text in told if secret in text]
    env = json.loads(docker("image", "inspect", "--format={{json .Config.Env}}", boxed.image))
    base = json.loads(docker("image", "inspect", "--format={{json .Config.Env}}", BASE)) or []
    assert {word.partition("=")[0] for word in {*env} - {*base}} <= {
        "HOME",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONNOUSERSITE",
        "PYTHONSAFEPATH",
        "PYTHONUNBUFFERED",
    }
    # Neither the bundle nor pip itself is needed any more once the wheels are in.
    left = docker("run", "--rm", "--entrypoint=sh", boxed.image, "-c", "ls -A /tmp /opt/deployer/bin")
    assert "ca.pem" not in left
    assert "requirements.txt" not in left
    writable = "find /opt/deployer ! -type l ( ! -user 0 -o -perm /022 -o -perm /6000 )"
    assert docker("run", "--rm", "--entrypoint=find", boxed.image, *writable.split()[1:]) == ""


def test_nothing_is_compiled_at_a_start(image: str) -> None:
    look = """
import os, sys, devpi_server.main
print([name for name, module in sys.modules.items() if not os.path.exists(getattr(module, "__cached__", None) or "/")])
"""
    words = ("run", "--rm", "--read-only", "--entrypoint=/opt/deployer/bin/python", image, "-W", "ignore", "-c", look)
    assert docker(*words) == "[]"


def test_a_named_volume_belongs_to_the_images_own_user(boxed: Boxed) -> None:
    volume = boxed.name
    try:
        network = f"--publish=127.0.0.1:{boxed.server.port}:3141"
        docker("run", "--detach", f"--name={boxed.name}", f"--volume={volume}:/data", network, *HARDENED, boxed.image)
        boxed.server.wait()
        assert docker("exec", boxed.name, "stat", "--format=%u:%g %a", "/data", "/data/.sqlite").split() == [
            *("3141:3141", "700"),
            *("3141:3141", "600"),
        ]
    finally:
        docker("rm", "--force", boxed.name)
        docker("volume", "rm", volume)


def test_its_health_is_that_of_the_port_that_it_serves(boxed: Boxed) -> None:
    port = boxed.server.port
    words = ("serve", "--serverdir", "/data", "--host", "127.0.0.1", "--port", str(port))
    boxed.run(*words, options=(user(), "--health-interval=1s"), network=("--network=host",))
    boxed.server.wait()
    deadline = time.monotonic() + PATIENCE
    while boxed.inspect(".State.Health.Status") != '"healthy"':
        assert time.monotonic() < deadline, boxed.inspect(".State.Health")
        time.sleep(0.2)


def test_a_crowd_of_wrong_passwords_does_not_kill_it(boxed: Boxed) -> None:
    boxed.run(options=(user(),))
    server = boxed.server.wait()
    # Of a password that somebody chose: checking it takes 64 MiB.
    assert request(server.port, "PUT", "/alice", body={"password": "correct horse"}, headers=server.auth)[0] == 201
    wrong = {"X-Devpi-Auth": base64.b64encode(b"alice:wrong").decode()}

    def ask(_: int) -> int:
        return request(server.port, "GET", "/+api", headers=wrong)[0]

    with ThreadPoolExecutor(40) as crowd:
        assert set(crowd.map(ask, range(40))) == {200}
    assert boxed.state() == ("running", 0, False)


def test_a_second_container_on_the_directory_is_refused(boxed: Boxed) -> None:
    boxed.run(options=(user(),))
    boxed.server.wait()
    second = Boxed(boxed.image, Server(boxed.server.serverdir, port=free_port()))
    try:
        second.run(options=(user(),))
        assert second.until_it_ends() == 5
        assert "another server runs on /data" in docker("logs", second.name)
        assert boxed.server.answers()
    finally:
        docker("rm", "--force", second.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a directory that belongs to somebody else")
def test_a_directory_of_somebody_else_is_refused(boxed: Boxed) -> None:
    os.chown(boxed.server.serverdir, 0, 0)
    boxed.run(options=(user(),))
    assert boxed.until_it_ends() == 11
    assert str(UID) in docker("logs", boxed.name)
    assert list(boxed.server.serverdir.iterdir()) == []


def test_nginx_answers_in_it_within_the_limits(boxed: Boxed) -> None:
    boxed.run(options=(user(),))
    server = boxed.server.wait()
    front = request(server.port, "GET", "/+deployer")[1]["front"]
    if not front.startswith("nginx"):
        pytest.skip(f"apt reached nothing when the image was built: {front}")
    auth = make_indexes(server, "http://192.0.2.1/simple/")
    # Larger than what the container has for temporary files in memory, and as large as a wheel gets.
    filename = upload(server, "large", "1.0", noise(70 << 20, seed=1), auth=auth)
    page = json.loads(ask(server.port, "/root/dev/+simple/large/", PIP).body)
    assert [file["filename"] for file in page["files"]] == [filename]
    path = urljoin("/root/dev/+simple/large/", page["files"][0]["url"])
    assert ask(server.port, path, {"Range": "bytes=5-14"}).body == noise(70 << 20, seed=1)[5:15]
    docker("exec", boxed.name, "sh", "-c", "kill -9 $(cat /data/.deployer/run/nginx.pid)")
    assert ask(server.port, "/root/dev/+simple/large/", PIP).status == 200
    docker("stop", "--time=60", boxed.name)
    assert boxed.state() == ("exited", 0, False)
