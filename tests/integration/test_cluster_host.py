"""A cluster on one host, as its users see it: it comes up, serves, survives the loss of each member, and goes away."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployer.deployment.certificate import served
from tests.engines import BASE, need
from tests.indexed_server import FILE, JSON, get, upload
from tests.integration.cli import Cli
from tests.integration.installers import pip, uv
from tests.plain_devpi import free_port
from tests.server_process import PATIENCE, request
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.server, pytest.mark.timeout(900)]

CONTAINERS = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("docker", "podman")]
REPLICAS = 2
MEMBERS = range(REPLICAS + 1)


@dataclass
class Team:
    """The cluster: its command line, and the clients' address."""

    cli: Cli
    path: Path
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.cli.port

    @property
    def index(self) -> str:
        return f"{self.cli.url}/root/dev/+simple/"

    @property
    def auth(self) -> dict[str, str]:
        password = self.cli.run("secret", "show", "root").out.strip()
        token = request(self.port, "POST", "/+login", body={"user": "root", "password": password})[1]["result"]
        pair = f"root:{token['password']}".encode()
        return {"X-Devpi-Auth": base64.b64encode(pair).decode()}

    def up(self, *words: str) -> dict[str, Any]:
        done = self.cli.run("up", "--json", *words, timeout=900)
        assert done.code == 0, done.out + done.err
        return done.data

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.cli.run("status", "--json").out)["data"])

    def member(self, number: int) -> dict[str, Any]:
        return next(dict(one) for one in self.status()["members"] if one["number"] == number)

    def kill(self, number: int) -> None:
        """``kill -9`` of the supervisor, with which its server ends; return when it is gone."""
        record = self.cli.home / "state" / f"{self.cli.name}.{number}" / "process" / "record.json"
        pid = json.loads(record.read_text())["pid"]
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while self.member(number)["state"] == "running" or self._listens(number):
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def _listens(self, number: int) -> bool:
        try:
            request(self.port_of(number), "GET", "/+live")
        except OSError:
            return False
        return True

    def port_of(self, number: int) -> int:
        record = self.cli.home / "state" / f"{self.cli.name}.{number}" / "process" / "record.json"
        return int(json.loads(record.read_text())["spec"]["ports"][0]["host_port"])


class Readers:
    """Clients that read a page again and again; ``answers``: how often which status, or error."""

    def __init__(self, port: int, path: str, *, clients: int = 2) -> None:
        self.answers: Counter[object] = Counter()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(port, path)) for _ in range(clients)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _read(self, port: int, path: str) -> None:
        while not self._over.wait(0.02):
            try:
                self.answers[self._get(port, path)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.answers[repr(error)] += 1

    @staticmethod
    def _get(port: int, path: str) -> int:
        """The status; a connection that breaks is tried once more, as pip and uv do: the kernel resets those that a
        balancer has not accepted when it ends."""
        try:
            return get(port, path, JSON).status
        except ConnectionResetError:
            return get(port, path, JSON).status


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in ("warm", "known", "cold", "later")]) as running:
        yield running


def of_processes(cli: Cli, upstream: Upstream) -> str:
    """A profile of members that are processes."""
    return yaml.safe_dump(
        {
            "extends": "default",
            "engine": "process",
            "data": str(cli.data),
            "network": {"port": cli.port},
            "cluster": {"replicas": REPLICAS},
            "indexes": {"root/pypi": {"url": upstream.simple_url}},
        }
    )


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Team]:
    home = tmp_path_factory.mktemp("cluster")
    path = home / "team.yaml"
    cli = Cli(home=home, engine="process", extra={"DEPLOYER_PROFILE": str(path)})
    path.write_text(of_processes(cli, upstream))
    made = Team(cli, path)
    try:
        assert made.up("--set", "cluster.replicas=0")["server"] == "created"
        assert upload(made, made.auth, "root/dev", make_wheel("before", "1.0")) == 200
        made.told = made.up()
        yield made
    finally:
        cli.run("down", "--purge", "--yes", "--wait", "30")


def test_up_returns_when_all_members_are_in_sync(team: Team) -> None:
    members = team.told["members"]
    assert [(one["number"], one["role"], one["ready"]) for one in members] == [
        (0, "primary", True),
        (1, "replica", True),
        (2, "replica", True),
    ]
    assert team.told["simple_url"] == team.index
    assert get(team.port, "/root/dev/+simple/before/", JSON).status == 200  # of the single server that it was
    found = team.status()
    assert (found["state"], found["ready"], found["primary"]) == ("running", True, 0)


def test_a_second_up_changes_nothing(team: Team) -> None:
    pids = _pids(team)
    assert team.up()["changes"] == []
    assert _pids(team) == pids
    planned = team.cli.run("plan", "--json")
    assert (planned.code, planned.data["changes"]) == (0, [])


def _pids(team: Team) -> list[int]:
    names = (team.cli.name, *(f"{team.cli.name}.{number}" for number in MEMBERS))
    return [json.loads((team.cli.home / "state" / n / "process/record.json").read_text())["pid"] for n in names]


@pytest.mark.parametrize("install", [pip, uv])
def test_clients_install_through_it(team: Team, install: Any) -> None:
    done = install(team.index, "warm==1.0")
    assert done.succeeded, done.told
    assert done.versions == {"warm-1.0"}


def test_what_twine_uploads_is_at_every_member_at_once(team: Team, tmp_path: Path) -> None:
    wheel = make_wheel("acme", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    password = team.cli.run("secret", "show", "root").out.strip()
    words = ("upload", "--non-interactive", "--disable-progress-bar", "--repository-url", f"{team.cli.url}/root/dev/")
    done = subprocess.run(
        [sys.executable, "-m", "twine", *words, str(tmp_path / wheel.filename)],
        env={**os.environ, "HOME": str(tmp_path), "TWINE_USERNAME": "root", "TWINE_PASSWORD": password},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for port in (team.port, team.port, team.port, *(team.port_of(number) for number in MEMBERS)):
        page = get(port, "/root/dev/+simple/acme/", JSON)
        assert page.status == 200
        assert [one["filename"] for one in json.loads(page.body)["files"]] == [wheel.filename]


def test_members_are_on_loopback_and_know_their_clients(team: Team) -> None:
    addresses = [json.loads((_state(team, number)).read_text())["spec"]["ports"] for number in MEMBERS]
    assert {port["host_ip"] for ports in addresses for port in ports} == {"127.0.0.1"}
    # The balancer names the client: a member that trusts it believes the address.
    command = json.loads(_state(team, 1).read_text())["spec"]["command"]
    assert command[command.index("--trusted-proxy") + 1] == "127.0.0.1"


def _state(team: Team, number: int) -> Path:
    return team.cli.home / "state" / f"{team.cli.name}.{number}" / "process" / "record.json"


@pytest.mark.parametrize("lost", [(1,), (0,)], ids=["replica", "primary"])
def test_members_may_be_lost(team: Team, lost: tuple[int, ...]) -> None:
    page = json.loads(get(team.port, "/root/dev/+simple/warm/", JSON).body)
    path = f"/root/pypi/{page['files'][0]['url'].partition('root/pypi/')[2].partition('#')[0]}"
    auth = team.auth
    for number in lost:
        team.kill(number)
        for _ in range(3 * len(MEMBERS)):
            assert get(team.port, "/root/dev/+simple/warm/", JSON).status == 200
            assert get(team.port, path, FILE).status == 200
    assert pip(team.index, "warm==1.0").succeeded
    taken = team.port_of(lost[0])
    found = team.cli.run("status", "--json")
    assert found.code == 6
    states = {one["number"]: (one["ready"], one["state"]) for one in json.loads(found.out)["data"]["members"]}
    assert {states[number] for number in lost} == {(False, "stopped")}
    doctor = team.cli.run("doctor")
    assert doctor.code == 9
    assert f"member {lost[0]}" in doctor.out
    written = upload(team, auth, "root/dev", make_wheel("acme", f"2.{lost[0]}"))
    assert written == (503 if 0 in lost else 200)
    if 0 in lost:
        assert get(team.port, "/root/dev/+simple/unheard-of/", JSON).status == 502
    # Meanwhile somebody takes the port of one.
    with ExitStack() as held:
        with suppress(OSError):  # somebody else has it already
            held.enter_context(socket.create_server(("127.0.0.1", taken)))
        assert team.up()["server"] == "changed"
    assert team.status()["ready"]


def test_a_replica_is_promoted_when_the_primary_is_lost(team: Team) -> None:
    wheel = make_wheel("acme", "3.0")
    assert upload(team, team.auth, "root/dev", wheel) == 200
    stored = [next(_data(team, number).rglob(wheel.filename)).stat().st_ino for number in (1, 2)]
    team.kill(0)
    refused = team.cli.run("cluster", "promote", "0")
    assert (refused.code, "member 0 is the primary" in refused.err) == (5, True)
    with Readers(team.port, "/root/dev/+simple/warm/") as readers:
        done = team.cli.run("cluster", "promote", "1", "--json", timeout=900)
    assert done.code == 0, done.out
    assert set(readers.answers) == {200}, readers.answers
    assert (done.data["primary"], done.data["former"], done.data["commits_lost"]) == (1, 0, 0)
    assert done.data["renewed"]
    assert {one["number"]: (one["role"], one["ready"]) for one in done.data["members"]} == {
        0: ("replica", True),
        1: ("primary", True),
        2: ("replica", True),
    }
    # Nothing was copied again.
    assert [next(_data(team, number).rglob(wheel.filename)).stat().st_ino for number in (1, 2)] == stored
    assert upload(team, team.auth, "root/dev", make_wheel("acme", "3.1")) == 200
    for number in MEMBERS:
        page = json.loads(get(team.port_of(number), "/root/dev/+simple/acme/", JSON).body)
        assert {one["filename"] for one in page["files"]} >= {wheel.filename, "acme-3.1-py3-none-any.whl"}
    # Commands go to the new primary, and a profile without changes changes nothing.
    assert team.cli.run("user", "create", "ann").code == 0
    assert team.up()["changes"] == []


def _data(team: Team, number: int) -> Path:
    return Path(f"{team.cli.data}-{number}" if number else team.cli.data) / "+files"


def test_down_keeps_the_data_and_nothing_else(team: Team) -> None:
    pids = _pids(team)
    done = team.cli.run("down", "--json")
    assert done.code == 0, done.err
    data = team.cli.data
    kept = {str(data), *(f"{data}-{number}" for number in MEMBERS if number)}
    assert set(done.data["data_kept"].split(", ")) == kept
    assert not [pid for pid in pids if _runs(pid)]
    with pytest.raises(OSError):
        request(team.port, "GET", "/+live")
    assert team.cli.run("status").code == 6
    refused = team.cli.run("up", "--set", "cluster.replicas=0")
    assert (refused.code, "member 1 of" in refused.err) == (11, True)
    # It comes back with all that was uploaded.
    assert all(one["ready"] for one in team.up()["members"])
    page = json.loads(get(team.port, "/root/dev/+simple/acme/", JSON).body)
    assert {one["filename"] for one in page["files"]} >= {"acme-1.0-py3-none-any.whl", "acme-3.1-py3-none-any.whl"}


def test_clients_have_https(tmp_path: Path, upstream: Upstream) -> None:
    path, port = tmp_path / "team.yaml", free_port()
    cli = Cli(home=tmp_path, engine="process", extra={"DEPLOYER_PROFILE": str(path)})
    profile = yaml.safe_load(of_processes(cli, upstream))
    profile["network"] |= {"hosts": ["index.example.com"]}
    profile["cluster"]["replicas"] = 1
    path.write_text(yaml.safe_dump(profile))
    words = ("--no-pip", "--set", "network.tls.cert=auto", "--set", f"network.tls.port={port}")
    team, url = Team(cli, path), f"https://index.example.com:{port}"
    try:
        assert team.up("--no-pip")["server"] == "changed"
        assert (team.status()["tls"], cli.run("tls", "ca").code, cli.run("tls", "renew").code) == (None, 5, 5)
        done = cli.run("up", *words, timeout=900)
        assert (done.code, f"tls       {url} (certificate until" in done.err) == (0, True), done.err
        assert cli.run("up", "--json", *words).data["changes"] == []
        tls = team.status()["tls"]
        assert (tls["url"], tls["answers"], "index.example.com" in tls["names"]) == (url, True, True)
        assert [one["level"] for one in cli.run("doctor", "--json").data["checks"]] == ["ok"] * 7
        ca = tmp_path / "ca.pem"
        ca.write_text(cli.run("tls", "ca").out)
        trust = ssl.create_default_context(cafile=str(ca))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trust, trust_env=False) as client:
            assert client.get("/root/pypi/+simple/warm/").status_code == 200
            # Members know how the client came.
            told = client.get("/+api", headers={"Host": f"index.example.com:{port}"}).json()["result"]["login"]
            assert told == f"{url}/+login"
            assert client.get("/+api", headers={"Host": "elsewhere.example"}).status_code == 421
        assert cli.run("tls", "renew", "--json").data["changed"] is False
        kept = cli.home / "state" / cli.name / "tls" / "server.pem"
        former = served(f"https://127.0.0.1:{port}")
        kept.unlink()  # as if it were due
        assert cli.run("tls", "renew", "--json").data["changed"] is True
        assert served(f"https://127.0.0.1:{port}") != former
        assert ca.read_text() == cli.run("tls", "ca").out
        assert cli.run("up", "--json", "--no-pip", "--set", "network.tls.cert=").data["changes"]
        assert served(f"https://127.0.0.1:{port}") is None
    finally:
        done = cli.run("down", "--purge", "--yes", "--wait", "30")
    assert done.code == 0, done.err
    assert list(tmp_path.rglob("*.pem")) == [ca]


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not waited for has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.endurance
@pytest.mark.parametrize("single", [False, True], ids=["from-nothing", "from-a-single-server"])
def test_an_up_that_is_killed_is_completed_by_the_next_one(tmp_path: Path, upstream: Upstream, single: bool) -> None:
    path = tmp_path / "team.yaml"
    cli = Cli(home=tmp_path, engine="process", extra={"DEPLOYER_PROFILE": str(path)})
    path.write_text(of_processes(cli, upstream))
    team = Team(cli, path)
    try:
        for step in range(1, 12):
            if single:
                team.up("--set", "cluster.replicas=0")
                assert upload(team, team.auth, "root/dev", make_wheel("before", "1.0")) == 200
            killed = subprocess.Popen(cli.argv("up", "--quiet"), env=cli.env, cwd=cli.home, stdout=subprocess.DEVNULL)
            time.sleep(step / 2)  # at any moment of it
            killed.kill()
            killed.wait(PATIENCE)
            assert all(one["ready"] for one in team.up()["members"])
            if single:
                assert get(team.port, "/root/dev/+simple/before/", JSON).status == 200
            assert cli.run("plan").code == 0
            assert cli.run("down", "--purge", "--yes").code == 0
            assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("data")) == []
    finally:
        cli.run("down", "--purge", "--yes", "--wait", "30")


@pytest.mark.endurance
@pytest.mark.parametrize("engine", CONTAINERS)
@pytest.mark.parametrize("data", ["", "volume:"], ids=["directory", "volume"])
def test_containers_are_members_as_well(engine: str, data: str, tmp_path: Path, upstream: Upstream) -> None:
    need(engine)
    tmp_path.chmod(0o755)  # the container's user goes through it
    path = tmp_path / "team.yaml"
    cli = Cli(home=tmp_path, engine=engine, extra={"DEPLOYER_PROFILE": str(path)})
    path.write_text(
        yaml.safe_dump(
            {
                "extends": "default",
                "engine": engine,
                "data": f"{data}{cli.name}" if data else str(cli.data),
                "image": {"base": BASE},
                "network": {"port": cli.port, "tls": {"cert": "auto", "port": free_port()}},
                "cluster": {"replicas": 1},
                "indexes": {"root/pypi": {"url": upstream.simple_url}},
            }
        )
    )
    team = Team(cli, path)
    try:
        assert all(one["ready"] for one in team.up()["members"])
        assert team.up()["changes"] == []
        assert team.status()["tls"]["answers"]
        wheel = make_wheel("acme", "1.0")
        assert upload(team, team.auth, "root/dev", wheel) == 200
        subprocess.run([engine, "kill", f"{cli.name}.0"], check=True, capture_output=True, timeout=PATIENCE)
        assert pip(team.index, "acme==1.0").succeeded
        done = cli.run("cluster", "promote", "1", "--json", timeout=900)
        assert (done.code, done.data["renewed"]) == (0, True), done.out
        assert upload(team, team.auth, "root/dev", make_wheel("acme", "1.1")) == 200
        assert team.status()["ready"]
        (cli.home / "state" / cli.name / "tls" / "server.pem").unlink()
        assert cli.run("tls", "renew", "--json").data["changed"] is True
    finally:
        done = cli.run("down", "--purge", "--yes", "--wait", "30")
    assert done.code == 0, done.err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("data")]
