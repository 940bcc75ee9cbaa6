"""Networks that are not the simple one, made for real: what `auto` chooses there, and what `doctor` says of them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from deployer.image import reference
from tests.authority import Authority
from tests.engines import need
from tests.integration.cli import Cli, Done
from tests.integration.image_builders import PIP
from tests.network_lab import (
    OUTSIDE,
    PROXY,
    RESOLVER,
    RESOLVER_MOVED,
    UPSTREAM,
    UPSTREAM_MOVED,
    ForwardProxy,
    Machine,
    Namespace,
    PodmanMachine,
    Resolver,
    Seated,
    until,
    why_not,
    world,
)
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.docker
NAME = "packages.example.com"
CONFIG = {"docker": "/etc/docker/daemon.json", "podman": "/etc/containers/containers.conf"}
# A page that fits into no single packet, as that of pip does not on any real index.
BIG = [make_wheel("pip", f"1.{number}") for number in range(300)]
SMALL = make_wheel("acme", "1.0")


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[type[Machine]], Machine]]:
    """Machines that have our image and no network yet, each made when it is first wanted."""
    if reason := why_not():
        pytest.skip(reason)
    made: dict[type[Machine], Machine] = {}

    def machine(kind: type[Machine]) -> Machine:
        need(kind.engine)
        if kind not in made:
            builder = Cli(home=tmp_path_factory.mktemp("built"), engine=kind.engine)
            builder.have_image()
            directory = Path(stack.enter_context(TemporaryDirectory(prefix="deployer-", ignore_cleanup_errors=True)))
            made[kind] = kind(directory)
            stack.callback(made[kind].stop)
            made[kind].wait()
            made[kind].has(reference())
        return made[kind]

    with ExitStack() as stack:
        yield machine


@pytest.fixture
def machine(request: pytest.FixtureRequest, machines: Callable[[type[Machine]], Machine]) -> Machine:
    """The machine of the test's parameter, else one with docker."""
    return machines(getattr(request, "param", Machine))


BOTH = pytest.mark.parametrize(
    "machine",
    [pytest.param(Machine, id="docker"), pytest.param(PodmanMachine, id="podman", marks=pytest.mark.podman)],
    indirect=True,
)


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
        engine=machine.engine,
        network="auto",
        upstream=upstream.simple_url,
        extra=machine.env,
        machine=machine,
    )
    try:
        yield made
    finally:
        made.clean()
        machine.reset()


def containers(machine: Machine) -> list[str]:
    return machine.ask("ps", "--all", "--format={{.Names}}").split()


def chosen(done: Done) -> str:
    """What the step of the network says."""
    assert done.code == 0, done.err
    (line,) = [line for line in done.err.splitlines() if line.startswith("network ")]
    return line.removeprefix("network").strip()


def findings(cli: Seated, *words: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code of `doctor`, and its checks by name; ``words`` come after where the deployment is to be."""
    done = cli.run("doctor", *cli.up_words()[1:], *words, "--json")
    return done.code, {check["name"]: check for check in done.data["checks"]}


def fetch(cli: Seated, project: str) -> None:
    """Have the real pip install from the server what it has to get from the upstream."""
    command = (sys.executable, "-m", "pip", "download", "--no-deps", f"--dest={cli.home}/fetched", project)
    done = cli.run("exec", "--", *command)
    assert done.code == 0, done.err


def test_a_bridge_is_taken_where_it_works_and_measured_once(
    machine: Machine, outside: Namespace, upstream: Upstream, cli: Seated
) -> None:
    with machine.connected(outside):
        assert chosen(cli.up("--no-pip")).startswith("bridge (auto: a bridged container reaches 10.99.0.1")
        assert containers(machine) == [cli.name]
        upstream.forget()
        again = cli.up("--no-pip", "--json")
        assert (again.data["network"], again.data["changes"]) == ("bridge", [])
        assert upstream.requests == ()
        assert (cli.home / "state" / cli.name / "network.json").stat().st_mode & 0o777 == 0o600
        # Another network is measured anew.
        machine.run("ip", "route", "add", "10.98.0.0/16", "via", OUTSIDE)
        assert cli.up("--no-pip", "--json").data["changes"] == []
        assert upstream.pages("pip") == 1
        code, found = findings(cli)
        assert (code, {check["level"] for check in found.values()} - {"warning"}) == (0, {"ok"})


@BOTH
def test_behind_a_vpn_that_drops_what_is_forwarded(
    machine: Machine, outside: Namespace, upstream: Upstream, cli: Seated, tmp_path: Path
) -> None:
    with machine.connected(outside, name="tun9"):
        machine.drop_forwarded()
        code, found = findings(cli, "--network", "bridge")
        assert code == 9
        assert found["network"]["level"] == "failure"
        assert "this host reaches 10.99.0.1" in found["network"]["evidence"]
        assert "what is forwarded to tun9 is dropped" in found["network"]["evidence"]
        assert found["network"]["cure"] == f"deployer up --name {cli.name} --network host"
        assert "out by tun9 (a VPN)" in found["route"]["evidence"]
        why = chosen(cli.up("--no-pip"))
        assert why.startswith("host (auto: this host reaches 10.99.0.1")
        assert "a bridged container does not: 10.99.0.1" in why
        fetch(cli, "acme")
        # A container build of the second project of the day needs no way out.
        upstream.forget()
        (tmp_path / "context").mkdir()
        step = f"{PIP} install --no-cache-dir --target /tmp/target acme"
        (tmp_path / "context/Dockerfile").write_text(f"FROM {reference()}\nRUN {step}\n")
        done = cli.run("build", "-t", "localhost/acme:1", str(tmp_path / "context"))
        assert done.code == 0, done.out + done.err
        assert upstream.requests == ()
        code, found = findings(cli)
        assert (code, found["network"]["level"]) == (0, "ok")
        assert "kill switch" in found["network"]["evidence"]


def test_a_killed_measurement_leaves_nothing_for_long(machine: Machine, outside: Namespace, cli: Seated) -> None:
    with machine.connected(outside, name="tun9"):
        machine.drop_forwarded()
        with subprocess.Popen(cli.argv(*cli.up_words("--no-pip")), env=cli.env, stderr=subprocess.DEVNULL) as entered:
            until(lambda: f"{cli.name}.reach" in containers(machine))
            listed = subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).split("\n")
            (running,) = [int(line.split()[0]) for line in listed if line.split()[1:] == [str(entered.pid)]]
            os.kill(running, signal.SIGKILL)
        # It ends by itself, and the engine removes it.
        until(lambda: containers(machine) == [])
        assert cli.up("--no-pip").code == 0
        assert containers(machine) == [cli.name]


@BOTH
@pytest.mark.endurance_of("podman")
def test_a_resolver_that_containers_can_not_ask(
    machine: Machine, outside: Namespace, upstream: Upstream, cli: Seated
) -> None:
    cli.upstream = upstream.simple_url.replace(UPSTREAM, NAME)
    machine.resolv_conf.write_text("nameserver 127.0.0.1\n")
    with machine.inside():
        resolver = Resolver({NAME: UPSTREAM}, address="127.0.0.1")
    with contextlib.closing(resolver), machine.connected(outside):
        code, found = findings(cli, "--network", "bridge")
        assert code == 9
        assert f"this host finds {NAME} (it asks 127.0.0.1), a bridged container does not" in found["names"]["evidence"]
        assert found["names"]["level"] == found["network"]["level"] == "failure"
        assert CONFIG[machine.engine] in found["names"]["cure"]
        why = chosen(cli.up("--no-pip"))
        assert why.startswith(f"host (auto: this host reaches {NAME}")
        assert "name resolution failed" in why
        fetch(cli, "acme")


def test_packets_that_are_too_large_for_the_way(machine: Machine, outside: Namespace, cli: Seated) -> None:
    """Nobody says that they are: what a bridged container asks for just never comes."""
    with machine.connected(outside, name="tun9", mtu=1400) as peer:
        outside.run("ip", "link", "set", peer, "gso_max_segs", "1")  # else one packet in here is many on the wire
        outside.run("iptables", "-A", "OUTPUT", "-o", peer, "-m", "length", "--length", "1401:65535", "-j", "DROP")
        code, found = findings(cli, "--network", "bridge")
        assert code == 9
        assert found["mtu"]["level"] == "failure"
        assert "tun9 takes 1400 bytes, a bridged container sends 1500" in found["mtu"]["evidence"]
        assert "--network host, or put an MTU of 1400 into /etc/docker/daemon.json" in found["mtu"]["cure"]
        assert chosen(cli.up("--no-pip")).startswith("host (auto: this host reaches 10.99.0.1")
        code, found = findings(cli)
        assert (code, found["mtu"]["level"]) == (0, "ok")


def through(where: Namespace | Machine) -> Callable[[str, int], socket.socket]:
    """How a proxy in ``where`` connects."""

    def connect(host: str, port: int) -> socket.socket:
        with where.inside():
            return socket.create_connection((host, port), timeout=10)

    return connect


def test_a_proxy_that_must_be_used(machine: Machine, outside: Namespace, cli: Seated) -> None:
    with machine.connected(outside) as peer:
        outside.run("iptables", "-A", "INPUT", "-i", peer, "-d", UPSTREAM, "-p", "tcp", "-j", "REJECT")
        with outside.inside():
            proxy = ForwardProxy(address=PROXY, connect=through(outside))
        with contextlib.closing(proxy):
            cli.extra["HTTP_PROXY"] = proxy.url
            code, found = findings(cli)
            assert code == 9
            assert "upstreams answer only through this proxy" in found["proxy"]["evidence"]
            assert found["proxy"]["cure"] == f"deployer up --name {cli.name} --set network.proxy=true"
            words = ("--set", "network.proxy=true")
            assert chosen(cli.up("--no-pip", *words)).startswith("bridge (auto: a bridged container reaches 10.99.0.1")
            proxy.asked.clear()
            fetch(cli, "acme")
            assert any("/simple/acme/" in asked for asked in proxy.asked)
            code, found = findings(cli, *words)
            assert (code, found["proxy"]["level"]) == (0, "ok")


def test_a_proxy_on_loopback(machine: Machine, outside: Namespace, cli: Seated) -> None:
    with machine.inside():
        proxy = ForwardProxy(address="127.0.0.1", connect=through(machine))
    with contextlib.closing(proxy), machine.connected(outside):
        cli.extra["HTTP_PROXY"] = proxy.url
        words = ("--set", "network.proxy=true")
        code, found = findings(cli, *words, "--network", "bridge")
        assert code == 9
        assert "a proxy on loopback, where no bridged container reaches it" in found["proxy"]["evidence"]
        assert chosen(cli.up("--no-pip", *words)).startswith("host (auto: this host reaches 10.99.0.1")
        fetch(cli, "acme")


def test_an_upstream_behind_a_ca_of_its_own(machine: Machine, outside: Namespace, cli: Seated, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    private = Upstream([*BIG, SMALL], host=UPSTREAM, tls=authority.context(UPSTREAM))
    with outside.inside():
        private.start()
    cli.upstream = private.simple_url
    cli.extra |= dict.fromkeys(("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"), "")
    try:
        with machine.connected(outside):
            code, found = findings(cli)
            assert code == 9
            assert "the certificate of 10.99.0.1 is not trusted" in found["ca"]["evidence"]
            assert found["ca"]["cure"].startswith(f"deployer up --name {cli.name} --set network.ca_file=")
            words = ("--set", f"network.ca_file={authority.file}")
            assert chosen(cli.up("--no-pip", *words)).startswith("bridge (auto: a bridged container reaches 10.99.0.1")
            fetch(cli, "acme")
            code, found = findings(cli, *words)
            assert (code, found["ca"]["level"]) == (0, "ok")
    finally:
        private.stop()


def test_a_localhost_that_is_ipv6_only(machine: Machine, outside: Namespace, cli: Seated) -> None:
    machine.hosts.write_text("::1 localhost\n")
    with machine.connected(outside):
        machine.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
        try:
            refused = cli.up("--no-pip")
            assert refused.code == 5
            assert "this host has no address 127.0.0.1" in refused.err
            assert "--bind ::1" in refused.err
            up = cli.up("--no-pip", "--bind", "::1")
            assert up.code == 0, up.err
            assert up.out == f"http://[::1]:{cli.port}/root/dev/+simple/\n"
            fetch(cli, "acme")
            code, found = findings(cli, "--bind", "::1")
            assert (code, found["server"]["level"]) == (0, "ok"), found
        finally:
            machine.run("ip", "addr", "add", "127.0.0.1/8", "dev", "lo")


@BOTH
@pytest.mark.parametrize("change", ["host", "host, another file", "bridge"])
@pytest.mark.endurance_of("podman")
def test_an_upstream_and_a_resolver_that_move_while_the_server_runs(
    machine: Machine, outside: Namespace, upstream: Upstream, cli: Seated, tmp_path: Path, change: str
) -> None:
    """As with another node of a VPN: the same name, asked elsewhere, is elsewhere."""
    cli.upstream = upstream.simple_url.replace(UPSTREAM, NAME)
    cli.network = change.partition(",")[0]
    upstream.keep_alive = False  # what has moved away does not go on answering on old connections
    moved = Upstream([*BIG, SMALL, make_wheel("later", "1.0")], host=UPSTREAM_MOVED, port=upstream.port)
    other = tmp_path / "other.conf"
    other.write_text(f"nameserver {RESOLVER_MOVED}\n")
    with ExitStack() as meanwhile, machine.connected(outside):
        with outside.inside():
            before = Resolver({NAME: UPSTREAM}, address=RESOLVER)
            meanwhile.enter_context(contextlib.closing(Resolver({NAME: UPSTREAM_MOVED}, address=RESOLVER_MOVED)))
            meanwhile.enter_context(moved)
        with contextlib.closing(before):
            up = cli.up("--no-pip")
            assert up.code == 0, up.err
            fetch(cli, "acme")
        upstream.stop()
        if change == "host, another file":
            machine.run("mount", "--bind", str(other), "/etc/resolv.conf")
            meanwhile.callback(machine.run, "umount", "/etc/resolv.conf")
        else:
            machine.resolv_conf.write_text(other.read_text())
        if change != "host":
            code, found = findings(cli)
            assert (code, found["resolver"]["level"]) == (9, "failure")
            assert f"the server asks {RESOLVER}, and this host {RESOLVER_MOVED} since" in found["resolver"]["evidence"]
            assert found["resolver"]["cure"] == f"deployer restart --name {cli.name} --cold"
            assert cli.run("restart", "--cold").code == 0
        fetch(cli, "later")
        code, found = findings(cli)
        assert (code, "resolver" in found) == (0, False), found


def test_only_what_can_lose_nothing_is_fixed(
    machine: Machine, outside: Namespace, upstream: Upstream, cli: Seated
) -> None:
    with machine.connected(outside):
        assert cli.up("--no-pip").code == 0
        state = cli.home / "state" / cli.name
        for path in (state, cli.data):
            path.chmod(0o755)
        code, found = findings(cli)
        assert (code, found["state"]["level"], found["data"]["level"]) == (0, "warning", "warning")
        assert cli.data.stat().st_mode & 0o777 == 0o755
        state.chmod(0o755)
        machine.ask("stop", cli.name)
        image = machine.ask("inspect", "--format={{.Image}}", cli.name)
        machine.ask("create", f"--label=io.devpi.deployer.name={cli.name}", f"--name={cli.name}.reach", image)
        code, found = findings(cli, "--fix")
        assert code == 0, found
        for name in ("state", "left over", "server"):
            assert (found[name]["level"], "; fixed: " in found[name]["evidence"]) == ("ok", True), found
        assert {path.stat().st_mode & 0o777 for path in (state, cli.data)} == {0o700}
        assert containers(machine) == [cli.name]
        assert cli.run("status").code == 0
        cli.data.chmod(0o755)
        _, found = findings(cli, "--fix")
        assert found["data"]["evidence"].endswith(f"; fixed: chmod 0700 {cli.data}")
        assert cli.data.stat().st_mode & 0o777 == 0o700
