"""HTTPS in a plan: where it listens, what is told to clients, and what is refused before any effect."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from itertools import pairwise
from typing import Any

import pytest

from deployer.diagnosis import Level
from deployer.diagnosis.tls import Seen, tls
from deployer.errors import ConflictError, Refused
from deployer.plan.facts import CertificateFacts, Facts, PortFacts
from deployer.plan.in_place import takes
from deployer.plan.tls import listed, names
from deployer.profile.models import Image, Network, Profile, Tls
from deployer.profile.validation import validate
from deployer.spec import LABEL_TLS, Port
from tests.unit.test_in_place import running
from tests.unit.test_plan import FACTS, PROCESS, make, refuse

OWN = CertificateFacts(
    own_ca=True, names=("host-1", "localhost"), source="/state/server.pem", left=timedelta(days=300), fingerprint="1"
)
GIVEN = CertificateFacts(own_ca=False, names=("index.example.com",), source="/etc/c.pem", left=timedelta(days=80))


def at(facts: Facts = FACTS, certificate: CertificateFacts = OWN, **changes: Any) -> Facts:
    return replace(facts, **{"tls_port": PortFacts(number=3443), "certificate": certificate, **changes})


def on(bind: str = "127.0.0.1", **network: Any) -> Profile:
    tls = network.pop("tls", Tls(cert="auto"))
    address = IPv6Address(bind) if ":" in bind else IPv4Address(bind)
    expose = not address.is_loopback
    return Profile(network=Network(mode="bridge", bind=address, tls=tls, expose=expose, **network))


def option(command: tuple[str, ...], name: str) -> str:
    return dict(pairwise(command))[name]


def test_without_tls_nothing_is_as_before() -> None:
    made = make()
    assert made.tls is None
    assert "--tls" not in made.spec.command
    assert LABEL_TLS not in dict(made.spec.labels)


def test_only_https_is_published_to_other_hosts() -> None:
    made = make(on("0.0.0.0"), at())
    assert made.spec.ports == (
        Port(host_ip="127.0.0.1", host_port=3141, container_port=3141),
        Port(host_ip="0.0.0.0", host_port=3443, container_port=3443),
    )
    assert (made.url, dict(made.spec.labels)[LABEL_TLS]) == ("http://127.0.0.1:3141", "https://127.0.0.1:3443")
    assert option(made.spec.command, "--tls") == "0.0.0.0:3443"
    assert made.simple_url.startswith("http://127.0.0.1:3141/")
    assert not made.loopback  # other hosts reach it: vulnerable versions of devpi-server are refused


@pytest.mark.parametrize(
    ("bind", "host", "tls"),
    [
        ("192.0.2.7", "127.0.0.1", "192.0.2.7:3443"),
        ("127.0.0.5", "127.0.0.5", "127.0.0.5:3443"),
        ("2001:db8::7", "::1", "[2001:db8::7]:3443"),
    ],
)
def test_a_process_listens_at_both_addresses(bind: str, host: str, tls: str) -> None:
    spec = make(on(bind), at(PROCESS, nginx=True)).spec
    assert (option(spec.command, "--host"), option(spec.command, "--tls")) == (host, tls)
    assert [(port.host_ip, port.host_port) for port in spec.ports] == [(host, 3141), (bind, 3443)]


def test_another_port_of_https_needs_another_container() -> None:
    before = running(on(), at())
    more = replace(OWN, names=(*OWN.names, "a.example.com"))
    assert takes(make(on(hosts=("a.example.com",)), at(certificate=more)).spec, before)
    assert not takes(make(on(), at(tls_port=PortFacts(number=4443))).spec, before)
    assert not takes(make(Profile(network=Network(mode="bridge"))).spec, before)


@pytest.mark.parametrize(
    ("profile", "certificate", "public"),
    [
        (on("0.0.0.0"), OWN, "https://host-1:3443"),
        (on("192.0.2.7"), OWN, "https://192.0.2.7:3443"),
        (on("2001:db8::7"), OWN, "https://[2001:db8::7]:3443"),
        (on("192.0.2.7", tls=Tls(cert="/c", key="/k")), GIVEN, "https://index.example.com:3443"),
        (
            on("0.0.0.0", tls=Tls(cert="auto", names=("b.example.com",)), hosts=("a.example.com",)),
            replace(OWN, names=("a.example.com", "b.example.com")),
            "https://b.example.com:3443",
        ),
        (on(outside_url="https://index.example.com/pypi/"), GIVEN, "https://index.example.com/pypi"),
        (on(tls=Tls(cert="/c", key="/k")), replace(GIVEN, names=("*.example.com",)), "https://localhost:3443"),
    ],
)
def test_clients_are_told_a_name_of_the_certificate(
    profile: Profile, certificate: CertificateFacts, public: str
) -> None:
    made = make(profile, at(certificate=certificate)).tls
    assert made is not None and made.public == public


def test_names_of_the_certificate_are_known_hosts() -> None:
    """Another name is of no use to a client, so an exposed server need not answer every one."""

    def hosts(profile: Profile, certificate: CertificateFacts) -> list[str]:
        return [b for a, b in pairwise(make(profile, at(certificate=certificate)).spec.command) if a == "--allow-host"]

    assert hosts(on("0.0.0.0"), GIVEN) == ["index.example.com"]
    assert hosts(on("0.0.0.0"), OWN) == []  # names without a dot are always known
    assert hosts(on("0.0.0.0"), replace(GIVEN, names=("*.example.com",))) == ["*"]
    assert hosts(on(), replace(GIVEN, names=("*.example.com", "127.0.0.1"))) == []
    assert hosts(
        on("0.0.0.0", hosts=("index.example.com",)), replace(GIVEN, names=("index.example.com", "192.0.2.7"))
    ) == ["index.example.com"]


def test_the_names_that_a_certificate_needs() -> None:
    network = Network(
        tls=Tls(cert="auto", names=("A.example.com",)),
        hosts=("*", "b.example.com"),
        outside_url="https://c.example.com:444/x",
        bind=IPv4Address("192.0.2.7"),
    )
    assert listed(network) == ("a.example.com", "b.example.com", "c.example.com")
    everything = (*listed(network), "192.0.2.7", "host", "localhost", "127.0.0.1", "::1")
    assert names(network, "HOST") == everything
    plain = network.model_copy(update={"outside_url": "http://c.example.com", "bind": IPv4Address("0.0.0.0")})
    assert names(plain, "host") == ("a.example.com", "b.example.com", "host", "localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("certificate", "told"),
    [
        (replace(GIVEN, problem="/c with /k: the key is not that of the certificate"), "the key is not that"),
        (replace(GIVEN, left=timedelta(days=-3)), "/etc/c.pem expired 3 days ago"),
        (replace(GIVEN, left=timedelta(0)), "expired 0 hours ago"),
        (replace(GIVEN, begins=timedelta(hours=5)), "valid in 5 hours only"),
        (replace(GIVEN, names=("other.example.com",)), "is for other.example.com, not for index.example.com"),
        (replace(GIVEN, names=()), "is for no name, not for index.example.com"),
    ],
)
def test_a_certificate_that_does_not_serve_is_refused(certificate: CertificateFacts, told: str) -> None:
    profile = on(tls=Tls(cert="/etc/c.pem", key="/etc/k.pem"), hosts=("index.example.com",))
    assert told in refuse(ConflictError, profile, at(certificate=certificate)).message


def test_what_can_have_no_https_is_refused() -> None:
    assert "no nginx" in refuse(ConflictError, on(), at(PROCESS, nginx=False)).message
    foreign = on().model_copy(update={"image": Image(ref="other/devpi:1")})
    assert "other/devpi:1" in refuse(Refused, foreign, at()).message
    taken = at(tls_port=PortFacts(number=3443, free=False, holder="nginx"))
    error = refuse(ConflictError, on(), taken)
    assert (error.message, "network.tls.port" in error.hint) == ("port 3443 is taken by nginx", True)


def test_risks_are_warned_of() -> None:
    quiet = make(on(), at()).warnings
    risky = replace(GIVEN, open_key="/etc/k.pem", left=timedelta(days=5), new_authority="a.example.com")
    loud = "\n".join(line for line in make(on(), at(certificate=risky)).warnings if line not in quiet)
    for told in ("chmod 0600 /etc/k.pem", "expires in 5 days", "the CA is made anew, for a.example.com"):
        assert told in loud
    exposed = "\n".join(make(on("0.0.0.0"), at()).warnings)
    assert "reads need no password" in exposed and "TLS proxy" not in exposed


@pytest.mark.parametrize(
    ("network", "server", "told"),
    [
        ({"tls": {"cert": "/c"}}, {}, "cert needs the path of its key"),
        ({"tls": {"cert": "auto", "key": "/k"}}, {}, "key needs the path of its certificate"),
        ({"tls": {"key": "/k"}}, {}, "key needs the path of its certificate"),
        ({"tls": {"cert": "c.pem", "key": "/k"}}, {}, "expected auto, nothing, or a path"),
        ({"tls": {"cert": "auto", "names": ["*"]}}, {}, "none of them is *"),
        ({"tls": {"cert": "auto", "port": 3141}}, {}, "port and tls.port are both 3141"),
        ({"tls": {"cert": "auto"}}, {"front": "python"}, "nginx answers HTTPS, and server.front is python"),
        ({"tls": "auto"}, {}, "expected 'key: value' lines below it"),
    ],
)
def test_a_wrong_profile_is_told(network: dict[str, Any], server: dict[str, Any], told: str) -> None:
    tree = {"network": network, "server": server, "indexes": {"root/dev": {"type": "stage"}}}
    _, problems = validate(tree, lambda path: None)
    assert told in "\n".join(problem.message for problem in problems)


@pytest.mark.parametrize(
    ("seen", "level", "told"),
    [
        (Seen(url="https://h"), Level.FAILURE, "no HTTPS answers at https://h"),
        (Seen(url="https://h", answers=True), Level.OK, "cryptography"),
        (Seen(url="https://h", answers=True, left=timedelta(days=15)), Level.OK, "valid for 15 days"),
        (Seen(url="https://h", answers=True, left=timedelta(days=13)), Level.WARNING, "expires in 13 days"),
        (Seen(url="https://h", answers=True, left=timedelta(days=-2)), Level.FAILURE, "expired 2 days ago"),
    ],
)
def test_doctor_tells_when_a_certificate_expires(seen: Seen, level: Level, told: str) -> None:
    check = tls(seen)
    assert check.level is level and told in check.evidence
    assert bool(check.cure) is (level is not Level.OK)
