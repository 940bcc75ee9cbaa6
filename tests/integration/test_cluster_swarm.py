"""A cluster on a real Swarm of one node, with an engine and a network of its own: nobody else's engine joins it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from deployer.image import reference
from tests.engines import need
from tests.indexed_server import FILE, JSON, get
from tests.integration.cli import Cli
from tests.integration.installers import pip, uv
from tests.network_lab import MACHINE, UPSTREAM, Machine, Seated, why_not, world
from tests.server_process import PATIENCE, request
from tests.upstream import Upstream, make_wheel

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

REPLICAS = 2
MEMBERS = range(REPLICAS + 1)
LATE = PATIENCE


class InMemory(Machine):
    """Its engine writes nothing to this host's disk: an image and three servers come and go there."""

    def _serving(self) -> tuple[str, ...]:
        disk = self._directory / "disk"
        return ("sh", "-c", f'mkdir {disk} && mount -t tmpfs tmpfs {disk} && exec "$@"', "sh", *super()._serving())


@dataclass
class Team:
    """The cluster: its command line, the engine with the swarm, and what ``up`` told."""

    cli: Seated
    machine: Machine
    told: dict[str, Any]

    @property
    def port(self) -> int:
        return self.cli.port

    @property
    def index(self) -> str:
        return f"http://{MACHINE}:{self.port}/root/dev/+simple/"

    def up(self, *words: str) -> dict[str, Any]:
        done = self.cli.run("up", "--json", *words, timeout=900)
        assert done.code == 0, done.out + done.err
        return done.data

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.cli.run("status", "--json").out)["data"])

    def containers(self, part: str = "") -> dict[str, str]:
        """The containers that run, by the parts of their services."""
        form = '{{.ID}} {{.Label "com.docker.swarm.service.name"}}'
        rows = [line.split() for line in self.machine.ask("ps", f"--format={form}").splitlines()]
        found = {name.removeprefix(f"{self.cli.name}_"): one for one, name in rows}
        return {name: one for name, one in found.items() if part in name}

    def until(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LATE
        while not what():
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.2)


def write(path: Path, port: int, upstream: str, *, replicas: int = REPLICAS) -> None:
    path.write_text(
        yaml.safe_dump(
            {
                "extends": "default",
                "engine": "swarm",
                "network": {"port": port, "expose": True},
                "server": {"ready_timeout": 300},
                "cluster": {"replicas": replicas},
                "indexes": {"root/pypi": {"url": upstream}},
            }
        )
    )


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    if reason := why_not():
        pytest.skip(reason)
    need("docker")
    home = tmp_path_factory.mktemp("cluster")
    Cli(home=tmp_path_factory.mktemp("built"), engine="docker").have_image()
    with ExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="deployer-", ignore_cleanup_errors=True))
        machine = InMemory(Path(directory))
        stack.callback(machine.stop)
        machine.wait()
        outside = world()
        stack.callback(outside.remove)
        stack.enter_context(machine.connected(outside))
        machine.has(reference())
        upstream = Upstream([make_wheel(name, "1.0") for name in ("warm", "cold")], host=UPSTREAM)
        with outside.inside():
            upstream.start()
        stack.callback(upstream.stop)
        path = home / "team.yaml"
        cli = Seated(home=home, engine="swarm", extra={**machine.env, "DEPLOYER_PROFILE": str(path)}, machine=machine)
        write(path, cli.port, upstream.simple_url)
        # An engine that manages no swarm is left as it is.
        refused = cli.run("up")
        assert (refused.code, "docker swarm init" in refused.err) == (4, True), refused.err
        machine.ask("swarm", "init", f"--advertise-addr={MACHINE}")
        with machine.inside():
            made = Team(cli, machine, {})
            made.told = made.up()
            yield made


def test_one_up_returns_when_all_members_are_in_sync(team: Team) -> None:
    assert [(one["number"], one["role"], one["ready"]) for one in team.told["members"]] == [
        (0, "primary", True),
        (1, "replica", True),
        (2, "replica", True),
    ]
    assert team.told["simple_url"] == team.index
    found = team.status()
    assert (found["state"], found["ready"], found["primary"]) == ("running", True, 0)


def test_a_second_up_changes_nothing(team: Team) -> None:
    before = team.containers()
    assert set(before) == {*(f"member-{number}" for number in MEMBERS), "balancer-0"}
    assert team.up()["changes"] == []
    assert team.containers() == before
    planned = team.cli.run("plan", "--json")
    assert (planned.code, planned.data["changes"]) == (0, [])


@pytest.mark.parametrize("install", [pip, uv])
def test_clients_install_through_it(team: Team, install: Any) -> None:
    trust = ("--trusted-host", MACHINE) if install is pip else ("--allow-insecure-host", MACHINE)
    done = install(team.index, *trust, "warm==1.0")
    assert done.succeeded, done.told
    assert done.versions == {"warm-1.0"}


def test_what_twine_uploads_is_at_every_member_at_once(team: Team, tmp_path: Path) -> None:
    wheel = make_wheel("acme", "1.0")
    (tmp_path / wheel.filename).write_bytes(wheel.content)
    password = team.cli.run("secret", "show", "root").out.strip()
    assert password
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
    for _ in range(2 * len(MEMBERS)):
        page = get(team.port, "/root/dev/+simple/acme/", JSON)
        assert [one["filename"] for one in json.loads(page.body)["files"]] == [wheel.filename]


@pytest.mark.endurance
def test_commands_go_to_the_cluster(team: Team) -> None:
    assert team.cli.run("user", "create", "ann").code == 0
    assert team.cli.run("user", "list").out.split() == ["ann", "root"]
    assert team.cli.run("secret", "show", "ann").out.strip()
    refused = team.cli.run("cache", "du")
    assert (refused.code, "runs on swarm" in refused.err) == (11, True), refused.err
    assert team.cli.run("user", "delete", "ann", "--yes").code == 0


def test_members_know_their_clients(team: Team) -> None:
    """A balancer publishes its port in host mode, and tells members who a client is."""
    seen = f"/root/dev/+simple/seen-{os.getpid()}/"
    get(team.port, seen, JSON)

    def logged() -> str:
        logs = (
            team.machine.ask("exec", one, "sh", "-c", "cat /data/.deployer/log/access.log || true")
            for one in team.containers("member").values()
        )
        return next((line for log in logs for line in log.splitlines() if seen in line), "")

    team.until(lambda: bool(logged()))
    subnet = team.machine.ask(
        "network", "inspect", "--format={{(index .IPAM.Config 0).Subnet}}", f"{team.cli.name}_members"
    )
    assert subnet.rpartition(".")[0] not in logged()


@pytest.mark.endurance
@pytest.mark.parametrize("number", [1, 2, 0])
def test_each_member_may_be_lost(team: Team, number: int) -> None:
    page = json.loads(get(team.port, "/root/dev/+simple/warm/", JSON).body)
    path = f"/root/pypi/{page['files'][0]['url'].partition('root/pypi/')[2].partition('#')[0]}"
    lost = team.containers()[f"member-{number}"]
    team.machine.ask("kill", lost)
    for _ in range(2 * len(MEMBERS)):
        assert get(team.port, "/root/dev/+simple/warm/", JSON).status == 200
        assert get(team.port, path, FILE).status == 200
    # Swarm starts it again, on its own volume.
    team.until(lambda: team.containers().get(f"member-{number}", lost) != lost and team.status()["ready"])
    assert pip(team.index, "--trusted-host", MACHINE, "warm==1.0").succeeded
    assert team.cli.run("plan", "--json").data["changes"] == []


@pytest.mark.endurance
def test_down_keeps_volumes_and_what_they_need(team: Team) -> None:
    done = team.cli.run("down", "--json")
    assert done.code == 0, done.err
    volumes = {f"{team.cli.name}_member-{number}" for number in MEMBERS}
    assert set(done.data["data_kept"].split(", ")) == volumes
    assert team.machine.ask("ps", "--all", "--quiet") == ""
    assert team.machine.ask("service", "ls", "--quiet") == ""
    assert team.cli.name not in team.machine.ask("network", "ls")
    with pytest.raises(OSError):
        request(team.port, "GET", "/+live")
    assert team.cli.run("status").code == 6
    # It comes back with all that was uploaded.
    assert team.up()["members"][0]["ready"]
    page = json.loads(get(team.port, "/root/dev/+simple/acme/", JSON).body)
    assert [one["filename"] for one in page["files"]] == ["acme-1.0-py3-none-any.whl"]


@pytest.mark.endurance
def test_an_empty_volume_makes_no_new_primary(team: Team) -> None:
    """Refused, and another member is promoted: nothing is lost."""
    service, volume = f"{team.cli.name}_member-0", f"{team.cli.name}_member-0"
    team.machine.ask("service", "scale", "--detach", f"{service}=0")
    team.until(lambda: "member-0" not in team.containers())

    def removed() -> bool:
        return _docker(team.machine, "volume", "rm", volume).returncode == 0

    team.until(removed)
    team.machine.ask("service", "scale", "--detach", f"{service}=1")
    team.until(lambda: "is empty" in _docker(team.machine, "service", "logs", "--raw", service).stderr)
    assert get(team.port, "/root/dev/+simple/acme/", JSON).status == 200
    promoted = team.cli.run("cluster", "promote", "1", "--yes", "--json", timeout=900)
    assert promoted.code == 0, promoted.out + promoted.err
    team.until(lambda: bool(team.status()["ready"]))
    found = team.status()
    assert (found["primary"], [one["role"] for one in found["members"]]) == (1, ["replica", "primary", "replica"])
    page = json.loads(get(team.port, "/root/dev/+simple/acme/", JSON).body)
    assert [one["filename"] for one in page["files"]] == ["acme-1.0-py3-none-any.whl"]
    assert team.cli.run("plan", "--json").data["changes"] == []


def _docker(machine: Machine, *words: str) -> subprocess.CompletedProcess[str]:
    """What the engine's client says, whether or not it fails."""
    env = {**os.environ, **machine.env}
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False, env=env)


@pytest.mark.endurance
def test_a_changed_setting_replaces_replicas_first(team: Team) -> None:
    before = team.containers("member")
    done = team.cli.run("up", "--set", "server.threads=20", "--json", timeout=900)
    assert done.code == 0, done.err
    assert not set(team.containers("member").values()) & set(before.values())


def test_purge_leaves_nothing(team: Team) -> None:
    done = team.cli.run("down", "--purge", "--yes", "--json")
    assert done.code == 0, done.err
    for kind in ("volume", "secret", "config", "service"):
        assert team.cli.name not in team.machine.ask(kind, "ls")
    assert team.machine.ask("ps", "--all", "--quiet") == ""
