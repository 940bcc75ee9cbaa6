"""Networks that are not the simple one, made for real: what `auto` chooses there, and what `doctor` says of them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.engines import need
from tests.integration.cli import Cli, Done
from tests.network_lab import (
    UPSTREAM,
    Machine,
    Namespace,
    Seated,
    why_not,
    world,
)
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.docker
NAME = "packages.example.com"
# A page that fits into no single packet, as that of pip does not on any real index.
BIG = [make_wheel("pip", f"1.{number}") for number in range(300)]
SMALL = make_wheel("acme", "1.0")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that has our image and no network yet."""
    need("docker")
    if reason := why_not():
        pytest.skip(reason)
    built = Cli(home=tmp_path_factory.mktemp("built"), engine="docker").run("image", "build", "--json")
    assert built.code == 0, built.out
    with TemporaryDirectory(prefix="deployer-", ignore_cleanup_errors=True) as directory:
        made = Machine(Path(directory))
        try:
            made.wait()
            made.has(built.data["ref"])
            yield made
        finally:
            made.stop()


@pytest.fixture
def outside(machine: Machine) -> Iterator[Namespace]:
    """The world that the machine is to be connected to."""
    made = world()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def upstream(outside: Namespace) -> Iterator[Upstream]:
    made = Upstream([*BIG, SMALL], host=UPSTREAM)
    with outside.inside():
        made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def cli(machine: Machine, upstream: Upstream, tmp_path: Path) -> Iterator[Seated]:
    """A user at the machine; the network is measured."""
    made = Seated(
        home=tmp_path,
        engine="docker",
        network="auto",
        upstream=upstream.simple_url,
        extra={"DOCKER_HOST": machine.docker_host},
        machine=machine,
    )
    try:
        yield made
    finally:
        made.clean()
        for rule in ("-F DOCKER-USER", "-A DOCKER-USER -j RETURN"):
            machine.run("iptables", *rule.split())


def containers(machine: Machine) -> list[str]:
    return machine.docker("ps", "--all", "--format={{.Names}}").split()


def chosen(done: Done) -> str:
    """What the step of the network says."""
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("network ")]
    return line.removeprefix("network").strip()


def test_a_bridge_is_taken_where_it_works_and_measured_once(
    machine: Machine, outside: Namespace, upstream: Upstream, cli: Seated
) -> None:
    machine.connect(outside)
    assert chosen(cli.up("--no-pip")).startswith("bridge (auto: a bridged container reaches 10.99.0.1")
    assert containers(machine) == [cli.name]
    upstream.forget()
    again = cli.up("--no-pip", "--json")
    assert (again.data["network"], again.data["changes"]) == ("bridge", [])
    assert upstream.requests == ()
    assert (cli.home / "state" / cli.name / "network.json").stat().st_mode & 0o777 == 0o600
    # Another network is measured anew.
    machine.run("ip", "route", "add", "10.98.0.0/16", "via", "10.77.0.1")
    assert cli.up("--no-pip", "--json").data["changes"] == []
    assert upstream.pages("pip") == 1
    machine.disconnect("eth9")


def test_behind_a_vpn_that_drops_what_is_forwarded(machine: Machine, outside: Namespace, cli: Seated) -> None:
    machine.connect(outside, name="tun9")
    machine.run("iptables", "-I", "DOCKER-USER", "-o", "tun9", "-j", "DROP")
    why = chosen(cli.up("--no-pip"))
    assert why.startswith("host (auto: this host reaches 10.99.0.1")
    assert "a bridged container does not: 10.99.0.1" in why
    done = cli.run("exec", "--", sys.executable, "-m", "pip", "download", "--no-deps", f"--dest={cli.home}", "acme")
    assert done.code == 0, done.err
    machine.disconnect("tun9")
