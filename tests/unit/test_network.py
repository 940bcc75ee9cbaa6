"""Which network a server gets, from what was measured; and what of the kernel's tables makes a network another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deployer.host import routes
from deployer.operations import upstream_probe
from deployer.plan import plan
from deployer.plan.container import CA_TARGET
from deployer.plan.facts import Facts, Measured, Reach, Vantage
from deployer.plan.network import choose, conclusive, on_host, reach_spec, said, upstreams
from deployer.profile.models import Image, Index, Network, Profile, Server
from deployer.spec import Container, ExecResult, Mount, NetworkMode, State
from tests.unit.test_plan import FACTS, PROCESS
from tests.upstream import Upstream, make_wheel

URL = "https://packages.example.com/simple/"
OTHER = "https://other.example.com/simple/"
AUTO = Profile(network=Network(mode="auto"), indexes={"root/pypi": Index(type="mirror", url=URL)})
GOOD = Reach(url=URL, stage="done", ok=True, status=200, seconds=0.2, peer="packages.example.com:443")
LOST = Reach(url=URL, stage="connect", error="nothing within 10 s", peer="packages.example.com:443")


def seen(*answers: Reach) -> Vantage:
    return Vantage(answers=answers)


def network(measured: Measured | None, facts: Facts = FACTS) -> tuple[NetworkMode, str, bool, str]:
    made = choose(AUTO, replace(facts, measured=measured), profile_name="default")
    return made.mode, made.reason, made.open, made.warning


def test_bridge_where_it_works() -> None:
    mode, reason, still_open, warning = network(Measured(bridge=seen(GOOD)))
    assert (mode, still_open, warning) == (NetworkMode.BRIDGE, False, "")
    assert reason == "auto: a bridged container reaches packages.example.com"


def test_host_where_only_that_works_and_why() -> None:
    mode, reason, still_open, warning = network(Measured(bridge=seen(LOST), host=seen(GOOD)))
    assert (mode, still_open, warning) == (NetworkMode.HOST, False, "")
    assert "this host reaches packages.example.com, a bridged container does not" in reason
    assert "connection failed: nothing within 10 s" in reason


def test_host_where_one_of_several_is_reached_from_there_only() -> None:
    other = replace(GOOD, url=OTHER)
    mode, reason, *_ = network(Measured(bridge=seen(other, LOST), host=seen(other, GOOD)))
    assert mode is NetworkMode.HOST
    assert "packages.example.com" in reason


def test_how_many_upstreams_a_container_misses_is_said() -> None:
    urls = [f"https://{number}.example.com/simple/" for number in range(3)]
    for count, more in ((1, ","), (2, " and 1 more,"), (3, " and 2 more,")):
        measured = Measured(
            bridge=seen(*(replace(LOST, url=url) for url in urls[:count])),
            host=seen(*(replace(GOOD, url=url) for url in urls[:count])),
        )
        assert f"this host reaches 0.example.com{more}" in network(measured)[1]


def test_only_what_is_not_reached_is_warned_of() -> None:
    _, reason, _, warning = network(Measured(bridge=seen(replace(GOOD, url=OTHER), LOST)))
    assert "neither" in reason
    assert "packages.example.com: packages.example.com:443: connection failed" in warning
    assert "other.example.com" not in warning
    assert network(Measured(bridge=Vantage(failure="no python")))[3].endswith("no python")


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ("resolve", "a:443: name resolution failed: why"),
        ("connect", "a:443: connection failed: why"),
        ("tls", "a:443: TLS handshake failed: why"),
        ("answer", "a:443 did not answer: why"),
        ("body", "a:443: the body ended after 17 bytes: why"),
    ],
)
def test_each_stage_at_which_a_request_ends_is_said(stage: str, text: str) -> None:
    answer = Reach(url=URL, stage=stage, error="why", peer="a:443", bytes=17)
    assert said(answer) == text
    assert said(replace(answer, peer="")) == text.replace("a:443", "upstream")


@pytest.mark.parametrize("host", [seen(LOST), seen(), Vantage(failure="no python"), None])
def test_bridge_with_a_warning_where_nothing_works(host: Vantage | None) -> None:
    mode, _, still_open, warning = network(Measured(bridge=seen(LOST), host=host))
    assert (mode, still_open) == (NetworkMode.BRIDGE, False)
    assert "upstreams not reachable" in warning
    assert not conclusive(Measured(bridge=seen(LOST), host=host))


def test_a_bridge_that_the_engine_can_not_give_is_none_that_works() -> None:
    measured = Measured(bridge=Vantage(failure="no such network"), host=seen(GOOD))
    mode, reason, *_ = network(measured)
    assert mode is NetworkMode.HOST
    assert "no such network" in reason
    assert conclusive(measured)


def test_not_measured_means_as_it_runs() -> None:
    assert network(None)[::2] == (NetworkMode.BRIDGE, True)
    running = Container(
        id="1", name="devpi", state=State.RUNNING, image="x", network=NetworkMode.HOST, labels={FACTS_LABEL: "devpi"}
    )
    assert network(None, replace(FACTS, current=running))[::2] == (NetworkMode.HOST, True)
    assert network(None, replace(FACTS, current=replace(running, labels={})))[0] is NetworkMode.BRIDGE


FACTS_LABEL = "io.devpi.deployer.name"


@pytest.mark.parametrize(
    ("profile", "facts", "mode"),
    [
        (AUTO, PROCESS, NetworkMode.HOST),
        (AUTO.model_copy(update={"image": Image(ref="example/devpi:6")}), FACTS, NetworkMode.BRIDGE),
        (AUTO.model_copy(update={"server": Server(offline=True)}), FACTS, NetworkMode.BRIDGE),
        (AUTO.model_copy(update={"indexes": {"root/dev": Index(type="stage")}}), FACTS, NetworkMode.BRIDGE),
        (Profile(network=Network(mode="host")), FACTS, NetworkMode.HOST),
    ],
    ids=["process", "another image", "offline", "no mirror", "told"],
)
def test_what_needs_no_measuring(profile: Profile, facts: Facts, mode: NetworkMode) -> None:
    made = choose(profile, facts, profile_name="default")
    assert (made.mode, made.open) == (mode, False)


def test_every_upstream_is_asked_once() -> None:
    indexes = {
        "root/pypi": Index(type="mirror"),
        "root/one": Index(type="mirror", url=OTHER),
        "root/two": Index(type="mirror", url=OTHER),
        "root/dev": Index(type="stage", bases=("root/pypi",)),
    }
    profile = AUTO.model_copy(update={"indexes": indexes})
    assert upstreams(profile, FACTS) == ("default", OTHER)
    assert upstreams(profile, replace(FACTS, upstream=URL)) == (URL, OTHER)


def test_a_throw_away_container_has_what_the_server_has_and_none_of_its_data(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    spec = plan(AUTO, replace(FACTS, ca_file=ca), name="devpi", profile_name="default").spec
    asking = reach_spec(spec, (URL,), ca_target=CA_TARGET)
    assert asking.name == "devpi.reach"
    assert asking.mounts == (Mount(kind="bind", source=str(ca), target=CA_TARGET, read_only=True, relabel=False),)
    assert (asking.env, asking.labels, asking.limits, asking.read_only) == (spec.env, spec.labels, spec.limits, True)
    assert (asking.ports, asking.network, asking.restart) == ((), NetworkMode.BRIDGE, "no")
    assert asking.command[0] == "reach"
    assert asking.command[-1] == URL
    here = on_host(asking, ca_file=ca, ca_target=CA_TARGET)
    assert dict(here.env)["REQUESTS_CA_BUNDLE"] == str(ca)


def test_the_hosts_own_resolver_is_seen_in_host_mode_only() -> None:
    facts = replace(FACTS, resolv_conf=Path("/etc/resolv.conf"))
    host = Profile(network=Network(mode="host"))

    def mounted(profile: Profile, facts: Facts) -> list[str]:
        spec = plan(profile, facts, name="devpi", profile_name="default").spec
        return [mount.target for mount in spec.mounts if mount.read_only]

    assert mounted(host, facts) == ["/etc/resolv.conf"]
    assert mounted(Profile(), facts) == []
    assert mounted(host, replace(facts, selinux=True)) == []
    assert mounted(Profile(), replace(PROCESS, resolv_conf=Path("/etc/resolv.conf"))) == []


def test_what_was_measured_is_remembered_until_the_network_is_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path))
    measured = Measured(bridge=Vantage(answers=(LOST,), resolvers=("10.0.0.1",), mtu={"eth0": 1500}), host=seen(GOOD))
    assert upstream_probe.recall("devpi", "a") is None
    upstream_probe.remember("devpi", "a", measured)
    assert upstream_probe.recall("devpi", "a") == measured
    assert upstream_probe.recall("devpi", "b") is None
    record = tmp_path / "devpi/network.json"
    assert record.stat().st_mode & 0o777 == 0o600
    for damage in (
        b"{",
        b"[]",
        b'{"fingerprint": "a"}',
        b'{"fingerprint": "a", "host": null, "bridge": {"answers": 1}}',
    ):
        record.write_bytes(damage)
        assert upstream_probe.recall("devpi", "a") is None
    upstream_probe.forget("devpi")
    upstream_probe.forget("devpi")
    assert not record.exists()


def test_this_host_asks_as_the_server_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb itself, as a process: refused, unknown, and answered."""
    monkeypatch.setenv("DEPLOYER_STATE_DIR", str(tmp_path))
    spec = plan(AUTO, FACTS, name="devpi", profile_name="default").spec
    with Upstream([make_wheel("pip", "1.0")]) as upstream:
        urls = (upstream.simple_url, "http://127.0.0.1:9/simple/", "http://nowhere.invalid/simple/")
        told = upstream_probe.from_host(spec, urls, ca_file=None, ca_target=CA_TARGET)
        assert upstream.pages("pip") == 1
    assert told.failure == ""
    assert [(answer.url, answer.stage, answer.ok) for answer in told.answers] == [
        (urls[0], "done", True),
        (urls[1], "connect", False),
        (urls[2], "resolve", False),
    ]


def test_junk_is_no_evidence() -> None:
    for junk in ("", "{}", "[]", "null", '{"answers": [{}], "resolvers": [], "mtu": {}}', "Traceback"):
        told = upstream_probe.read(ExecResult(returncode=1, stdout=junk, stderr="first\nModuleNotFoundError: httpx\n"))
        assert (told.answers, told.failure) == ((), "the probe failed: ModuleNotFoundError: httpx")


ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100000A\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t01000A0A\t0003\t0\t0\t50\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
IPV6 = "".join(
    f"{prefix:0<32} 40 {0:032} 00 {0:032} 00000100 00000001 00000000 00000001 eth0\n" for prefix in ("fd", "fe80")
)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A /proc/net and a /sys/class/net."""
    (tmp_path / "route").write_text(ROUTE)
    (tmp_path / "ipv6_route").write_text(IPV6)
    for name, flags, mtu in (
        ("lo", 9, 65536),
        ("eth0", 0x1003, 1500),
        ("tun0", 0x10D1, 1400),
        ("docker0", 0x1003, 1500),
    ):
        (tmp_path / "sys" / name).mkdir(parents=True)
        (tmp_path / "sys" / name / "flags").write_text(f"{flags:#x}\n")
        (tmp_path / "sys" / name / "mtu").write_text(f"{mtu}\n")
        (tmp_path / "sys" / name / "uevent").write_text(f"INTERFACE={name}\n")
    (tmp_path / "sys/docker0/bridge").mkdir()
    (tmp_path / "sys/down").mkdir()
    return tmp_path


def test_routes_of_bridges_are_not_ways_out(kernel: Path) -> None:
    assert [row[0] for row in routes.routes(kernel, net=kernel / "sys")] == ["eth0", "eth0", "tun0"]
    assert routes.routes(kernel / "absent") == ()


def test_the_default_route_is_that_of_the_smallest_metric(kernel: Path) -> None:
    assert routes.default_interface(kernel) == "tun0"
    assert routes.default_interface(kernel / "absent") == ""


def test_interfaces_and_which_of_them_are_a_vpn(kernel: Path) -> None:
    found = {interface.name: interface for interface in routes.interfaces(kernel / "sys")}
    assert set(found) == {"eth0", "tun0", "docker0"}
    assert [name for name, interface in found.items() if interface.vpn] == ["tun0"]
    assert [name for name, interface in found.items() if interface.bridge] == ["docker0"]
    (kernel / "sys/eth0/uevent").write_text("DEVTYPE=wireguard\nINTERFACE=eth0\n")
    assert [i.name for i in routes.interfaces(kernel / "sys") if i.vpn] == ["eth0", "tun0"]


def test_name_servers(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# by hand\nsearch example.com\nnameserver 10.0.0.1\nnameserver\n nameserver fd00::1 \n")
    assert routes.name_servers(path) == ("10.0.0.1", "fd00::1")
    assert routes.resolv_conf(path) == path
    assert routes.resolv_conf(tmp_path) is None
    assert routes.name_servers(tmp_path / "absent") == ()
