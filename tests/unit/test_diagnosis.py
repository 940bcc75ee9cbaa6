"""What `doctor` concludes, from views made up for the purpose: level, evidence and cure of every check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deployer.diagnosis import Check, Fix, Level, host, network, service, size
from deployer.diagnosis.view import View
from deployer.errors import NotReadyError
from deployer.plan import plan
from deployer.plan.facts import Interface, Reach, Vantage
from deployer.plan.network import Network, proxied
from deployer.profile.models import Profile
from deployer.protocol import Deleted
from deployer.spec import LABEL_BUILD, EngineName, Image, NetworkMode
from tests.unit.test_network import FACTS, PROCESS

URL = "https://packages.example.com/simple/"
PEER = "packages.example.com:443"
GOOD = Reach(
    url=URL, stage="done", ok=True, status=200, bytes=70_000, seconds=0.5, peer=PEER, addresses=("192.0.2.1",), skew=0.4
)
BRIDGE = Network(mode=NetworkMode.BRIDGE, reason="profile default")
HOST = Network(mode=NetworkMode.HOST, reason="auto: only that works")
TUN = Interface(name="tun0", mtu=1400, vpn=True)
ETH = Interface(name="eth0", mtu=1500)


def lost(stage: str, error: str = "nothing within 5 s", got: int = 0) -> Vantage:
    status = 200 if stage == "body" else 0
    answer = Reach(url=URL, stage=stage, status=status, bytes=got, error=error, peer=PEER)
    return Vantage(answers=(answer,), resolvers=("8.8.8.8",), mtu={"eth0": 1500})


SEEN = Vantage(answers=(GOOD,), resolvers=("10.0.0.1",), mtu={"eth0": 1500})
VIEW = View(
    engine=EngineName.DOCKER,
    network=BRIDGE,
    host=SEEN,
    bridge=SEEN,
    interfaces=(ETH,),
    default_route="eth0",
    egress="eth0",
    name_servers=("10.0.0.1",),
)


def found(view: View) -> dict[str, Check]:
    return {check.name: check for check in network.checks(view)}


def failed(view: View) -> set[str]:
    return {name for name, check in found(view).items() if check.level is Level.FAILURE}


def test_all_is_well() -> None:
    checks = found(VIEW)
    assert {check.level for check in checks.values()} == {Level.OK}
    assert set(checks) == {"route", "names", "mtu", "proxy", "ca", "clock", "upstream", "network"}
    assert checks["upstream"].evidence == f"{URL} answers 200 in 0.5 s, 70 kB at 140 kB/s"


def test_what_is_dropped_on_its_way_into_a_vpn() -> None:
    view = replace(VIEW, bridge=lost("connect"), interfaces=(ETH, TUN), egress="tun0")
    check = found(view)["network"]
    assert (check.level, check.cure) == (Level.FAILURE, "deployer up --network host")
    assert "what is forwarded to tun0 is dropped" in check.evidence
    assert found(view)["route"].evidence.startswith("out by tun0 (a VPN); packets of at most 1400 bytes")
    # No VPN is blamed for what another way out does, nor for what is refused.
    assert "dropped" not in found(replace(view, egress="eth0"))["network"].evidence
    assert "dropped" not in found(replace(view, bridge=lost("connect", "refused")))["network"].evidence


def test_what_a_bridge_can_not_do_is_no_trouble_in_host_mode() -> None:
    for stage in ("connect", "resolve", "tls", "body"):
        view = replace(VIEW, network=HOST, running=NetworkMode.HOST, bridge=lost(stage), inside=SEEN)
        assert failed(view) == set()
        assert found(view)["network"].level is Level.OK


def test_a_server_in_a_network_that_the_profile_does_not_say() -> None:
    view = replace(VIEW, running=NetworkMode.HOST, inside=SEEN, bridge=lost("connect"))
    check = found(view)["network"]
    assert (check.level, check.cure) == (Level.WARNING, "deployer up --network auto")
    check = found(replace(VIEW, running=NetworkMode.HOST, inside=SEEN))["network"]
    assert (check.level, check.cure) == (Level.WARNING, "deployer up")
    check = found(
        replace(VIEW, network=HOST, running=NetworkMode.BRIDGE, inside=lost("connect"), bridge=lost("connect"))
    )
    assert (check["network"].level, check["network"].cure) == (Level.FAILURE, "deployer up")


def test_names() -> None:
    check = found(replace(VIEW, bridge=lost("resolve", "Temporary failure")))["names"]
    assert check.level is Level.FAILURE
    assert "(it asks 10.0.0.1), a bridged container does not: it asks 8.8.8.8" in check.evidence
    assert "/etc/docker/daemon.json" in check.cure
    nobody = replace(VIEW, host=lost("resolve", "unknown"), bridge=lost("resolve", "unknown"))
    assert "this host does not find packages.example.com by name: it asks 10.0.0.1" in found(nobody)["names"].evidence
    assert {"names", "upstream"} <= failed(nobody)
    still = replace(nobody, inside=SEEN, running=NetworkMode.BRIDGE)
    assert found(still)["names"].level is Level.WARNING


@pytest.mark.parametrize("stage", ["tls", "body"])
def test_packets_that_vanish(stage: str) -> None:
    view = replace(VIEW, bridge=lost(stage), interfaces=(TUN,), egress="tun0")
    check = found(view)["mtu"]
    assert check.level is Level.FAILURE
    assert "tun0 takes 1400 bytes, a bridged container sends 1500" in check.evidence
    assert "an MTU of 1400 into /etc/docker/daemon.json" in check.cure
    check = found(replace(view, host=lost(stage)))["mtu"]
    assert check.cure.startswith("ip link set dev tun0 mtu 1280")


def test_a_small_answer_proves_nothing_of_large_packets() -> None:
    small = Vantage(answers=(replace(GOOD, bytes=300),), mtu={"eth0": 1500})
    view = replace(VIEW, bridge=small, host=small, interfaces=(TUN,), egress="tun0")
    assert found(view)["mtu"].level is Level.WARNING
    assert found(replace(view, interfaces=(ETH,), egress="eth0"))["mtu"].level is Level.OK


def test_a_certificate_is_no_matter_of_packets() -> None:
    error = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)"
    view = replace(VIEW, host=lost("tls", error), bridge=lost("tls", error), ca_file=Path("/etc/ca.pem"))
    checks = found(view)
    assert checks["mtu"].level is Level.OK
    assert checks["ca"].level is Level.FAILURE
    assert "is not trusted: self-signed certificate (/etc/ca.pem is passed on" in checks["ca"].evidence
    assert "network.ca_file" in checks["ca"].cure


def test_proxies() -> None:
    proxies = {"HTTPS_PROXY": "http://robot:hunter2@127.0.0.1:3128"}
    none = lost("connect")
    needed = replace(VIEW, proxies=proxies, host=none, bridge=none, proxied=SEEN)
    assert found(needed)["proxy"].cure == "deployer up --set network.proxy=true"
    assert "hunter2" not in found(needed)["proxy"].evidence
    loopback = replace(VIEW, proxies=proxies, pass_proxy=True, bridge=none)
    assert "a proxy on loopback" in found(loopback)["proxy"].evidence
    assert found(replace(VIEW, proxies=proxies))["proxy"].level is Level.OK


def test_the_clock() -> None:
    for skew, level in ((-30.0, Level.OK), (500.0, Level.WARNING), (-90_000.0, Level.WARNING), (None, Level.OK)):
        seen = Vantage(answers=(replace(GOOD, skew=skew),))
        check = found(replace(VIEW, bridge=seen, host=seen))["clock"]
        assert check.level is level
    assert "ahead" not in check.evidence


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (200, "ok"),
        (404, "ok"),
        (401, "warning"),
        (429, "warning"),
        (302, "warning"),
        (407, "failure"),
        (503, "failure"),
    ],
)
def test_what_an_upstream_answers(status: int, level: str) -> None:
    seen = Vantage(answers=(replace(GOOD, status=status, ok=status < 500 and status != 407),))
    assert found(replace(VIEW, bridge=seen, host=seen))["upstream"].level == level


def test_an_upstream_that_could_not_be_asked_is_not_called_well() -> None:
    blind = Vantage(failure="nothing could be asked: no python")
    check = found(replace(VIEW, bridge=blind, host=blind))["upstream"]
    assert (check.level, check.evidence) == (Level.FAILURE, "nothing could be asked: no python")


def test_a_server_that_lives_in_the_past() -> None:
    old = replace(lost("resolve"), resolvers=("10.0.0.9",))
    view = replace(VIEW, running=NetworkMode.BRIDGE, inside=old)
    check = found(view)["resolver"]
    assert (check.level, check.cure) == (Level.FAILURE, "deployer restart --cold")
    assert "the server asks 10.0.0.9, and this host 10.0.0.1 since" in check.evidence
    assert found(replace(view, inside=replace(old, resolvers=("10.0.0.1",))))["restart"].level is Level.FAILURE
    # Where nothing works for a new one either, a restart is no cure.
    assert "restart" not in found(replace(view, bridge=old))
    working = replace(SEEN, resolvers=("10.0.0.9",))
    check = found(replace(VIEW, network=HOST, running=NetworkMode.HOST, inside=working))["resolver"]
    assert check.level is Level.WARNING


def test_offline_asks_nobody() -> None:
    checks = found(replace(VIEW, offline=True, host=Vantage(), bridge=None))
    assert set(checks) == {"route", "upstream"}
    assert checks["upstream"].level is Level.OK


def test_a_process_has_no_bridge() -> None:
    view = replace(
        VIEW, engine=EngineName.PROCESS, network=Network(mode=NetworkMode.HOST, reason="a process"), bridge=None
    )
    assert failed(view) == set()
    assert found(view)["network"].evidence == "a process"


@pytest.mark.parametrize(
    ("mode", "uid", "usable", "level", "fix"),
    [
        (0o700, 1000, True, Level.OK, None),
        (None, 0, True, Level.OK, None),
        (0o755, 1000, True, Level.WARNING, Fix.CLOSE_STATE),
        (0o755, 0, True, Level.WARNING, None),
        (0o700, 0, False, Level.FAILURE, None),
    ],
)
def test_the_state_directory(mode: int | None, uid: int, usable: bool, level: Level, fix: Fix | None) -> None:
    facts = host.StateFacts(path=Path("/state"), mode=mode, uid=uid, usable=usable)
    check = host.state(facts, uid=1000)
    assert (check.level, check.fix) == (level, fix)


def test_the_image() -> None:
    made = plan(Profile(), FACTS, name="devpi", profile_name="default")
    current = Image(id="sha256:1", ref="x", labels={LABEL_BUILD: FACTS.image_build})

    def level(image: Image | None, base: Image | None) -> str:
        return host.image(made, image, base=base, base_ref="base:1").level

    assert level(current, None) == "ok"
    assert level(replace(current, labels={}), current) == "ok"
    assert level(None, None) == "warning"


def test_room() -> None:
    assert FACTS.data is not None
    little = replace(FACTS, data=replace(FACTS.data, free_bytes=1 << 28))
    made = plan(Profile(), little, name="devpi", profile_name="default")
    checks = {check.name: check for check in host.data(made, little)}
    assert checks["space"].level is Level.WARNING
    made = plan(Profile(), PROCESS, name="devpi", profile_name="default")
    assert {check.name for check in host.data(made, PROCESS)} == {"data", "space"}


def test_pip() -> None:
    simple = "http://127.0.0.1:3141/root/dev/+simple/"

    def told(index: str, source: str, **changes: object) -> Check:
        facts = service.ClientFacts(
            name="pip",
            key="index-url",
            index=index,
            source=source,
            variable=source.startswith("PIP_"),
            command="deployer configure-pip",
            risks=changes.pop("risks", ()),  # type: ignore[arg-type]
        )
        return service.client(facts, simple_url=simple, configured=True)

    assert told(simple, "/home/a/.config/pip/pip.conf").level is Level.OK
    assert told("https://x.example.com/simple", "PIP_INDEX_URL").cure.startswith("unset PIP_INDEX_URL")
    assert told("", "").cure == "deployer configure-pip"
    assert "hunter2" not in told("https://a:hunter2@x.example.com/simple", "pip.conf").evidence
    assert told(simple, "pip.conf", risks=("PIP_EXTRA_INDEX_URL: it is asked too",)).level is Level.WARNING


def test_projects_that_an_upstream_deleted() -> None:
    assert list(service.deleted(Deleted())) == []
    one = Deleted.of(["root/pypi/alpha"], kept=False)
    (check,) = service.deleted(one)
    assert (check.name, check.level) == ("mirrors", Level.WARNING)
    assert check.evidence.startswith("1 project was deleted at the upstream: root/pypi/alpha; ")
    assert "deployer up --set server.keep_deleted=true" in check.cure
    (check,) = service.deleted(Deleted.of([f"root/pypi/p{number:02}" for number in range(12)], kept=False))
    assert check.evidence.startswith("12 projects were deleted at the upstream: root/pypi/p00, ")
    assert "root/pypi/p09 and 2 more;" in check.evidence
    (check,) = service.deleted(replace(one, kept=True))
    assert (check.level, check.cure) == (Level.OK, "")


def test_the_server() -> None:
    ready = {"state": "running", "url": "http://127.0.0.1:3141"}
    assert service.server({"state": "absent"}, None, {}).level is Level.OK
    stopped = service.server({"state": "stopped"}, NotReadyError("it is stopped", hint="deployer up"), {})
    assert (stopped.level, stopped.fix, stopped.cure) == (Level.FAILURE, Fix.START, "deployer up")
    full = service.server({"state": "unhealthy"}, NotReadyError("it can't write"), {})
    assert (full.level, full.fix) == (Level.FAILURE, None)
    assert "can write to its data" in service.server(ready, None, {"writable": True, "free_bytes": 5_000_000}).evidence
    assert "5 MB free" in service.server(ready, None, {"writable": True, "free_bytes": 5_000_000}).evidence
    assert "does not report whether it can write" in service.server(ready, None, {}).evidence


@pytest.mark.parametrize(
    ("env", "asked"),
    [
        ({}, False),
        ({"HTTP_PROXY": "http://p:1"}, True),
        ({"all_proxy": "http://p:1"}, True),
        ({"HTTPS_PROXY": "http://p:1"}, False),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "example.com,127.0.0.1"}, False),
        ({"HTTP_PROXY": "http://p:1", "no_proxy": "*"}, False),
        ({"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.1"}, True),
    ],
)
def test_who_asks_a_proxy_for_the_index(env: dict[str, str], asked: bool) -> None:
    assert proxied("http://127.0.0.1:3141", env) is asked


def test_sizes() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 5e12)] == ["0 B", "999 B", "1 kB", "12 MB", "5.0 TB"]
