"""HTTPS of a server: where it listens, for which names, and whether its certificate can be used. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployer.certificates.pair import uncovered
from deployer.errors import ConflictError
from deployer.plan.facts import CertificateFacts, Facts

if TYPE_CHECKING:
    from deployer.profile.models import Network, Profile

INNER_PORT = 3443
"""The port of HTTPS inside the container."""
SOON = timedelta(days=14)
"""A certificate that ends within this time is warned of."""


@dataclass(frozen=True, kw_only=True)
class TlsPlan:
    """``url``: of HTTPS on this host. ``public``: as clients on other hosts get it. ``own_ca``: they need the CA."""

    url: str
    public: str
    names: tuple[str, ...]
    own_ca: bool


def plain_bind(network: Network) -> IPv4Address | IPv6Address:
    """The address of plain HTTP: with HTTPS, loopback."""
    if not network.tls.cert or network.bind.is_loopback:
        return network.bind
    return IPv6Address("::1") if network.bind.version == 6 else IPv4Address("127.0.0.1")


def listed(network: Network) -> tuple[str, ...]:
    """The names by which clients reach HTTPS, as far as the profile has them."""
    outside = urlsplit(network.outside_url)
    named = (*network.tls.names, *network.hosts, outside.hostname if outside.scheme == "https" else "")
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in named if name and name != "*"))


def names(network: Network, hostname: str) -> tuple[str, ...]:
    """All names that a certificate of our own CA is for."""
    bind = () if network.bind.is_unspecified else (str(network.bind),)
    return tuple(dict.fromkeys((*listed(network), *bind, hostname.lower(), "localhost", "127.0.0.1", "::1")))


def tls_plan(profile: Profile, facts: Facts) -> TlsPlan | None:
    """Plan HTTPS; None without. Raises ConflictError when the certificate can't be used."""
    from deployer.plan.conflicts import base_url

    network, certificate = profile.network, facts.certificate
    if not network.tls.cert or certificate is None or facts.tls_port is None:
        return None
    _check(network, certificate)
    if facts.nginx is False:
        raise ConflictError(
            "network.tls: nginx answers HTTPS, and there is no nginx on this host",
            hint="install nginx, or remove network.tls",
        )
    port = facts.tls_port.number
    return TlsPlan(
        url=base_url(network.bind, port, scheme="https"),
        public=_public(network, certificate, port),
        names=certificate.names,
        own_ca=certificate.own_ca,
    )


def _public(network: Network, certificate: CertificateFacts, port: int) -> str:
    if network.outside_url.startswith("https:"):
        return network.outside_url.rstrip("/")
    named = [*listed(network)]
    if certificate.own_ca and not network.bind.is_unspecified:
        named.append(str(network.bind))
    named += [name for name in certificate.names if not name.startswith("*")]
    host = (named or ["localhost"])[0]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def _check(network: Network, certificate: CertificateFacts) -> None:
    for wrong, hint in _wrong(network, certificate):
        raise ConflictError(f"network.tls: {wrong}", hint=hint)


def _wrong(network: Network, certificate: CertificateFacts) -> Iterator[tuple[str, str]]:
    file = certificate.source
    if certificate.problem:
        yield certificate.problem, "name a certificate and its key with network.tls.cert and network.tls.key"
    if certificate.left is not None and certificate.left <= timedelta():
        yield f"the certificate in {file} expired {_ago(-certificate.left)} ago", f"renew {file}"
    if certificate.begins is not None and certificate.begins > timedelta():
        yield f"the certificate in {file} is valid in {_ago(certificate.begins)} only", "check the clock of this host"
    if missing := uncovered(certificate.names, listed(network)):
        yield (
            f"the certificate in {file} is for {', '.join(certificate.names) or 'no name'}, not for {missing[0]}",
            f"get a certificate for {missing[0]}, or remove the name from network",
        )


def _ago(span: timedelta) -> str:
    return f"{span.days} days" if span.days > 1 else f"{round(span.total_seconds() / 3600)} hours"


def tls_warnings(facts: Facts) -> Iterator[str]:
    """Risks of a certificate that can be used."""
    certificate = facts.certificate
    if certificate is None:
        return
    if certificate.open_key:
        yield f"any user of this host can read the key of the certificate: chmod 0600 {certificate.open_key}"
    if certificate.new_authority:
        yield (
            f"the CA is made anew, for {certificate.new_authority}: give its certificate to all clients again "
            "(deployer tls ca)"
        )
    if certificate.left is not None and certificate.left < SOON:
        yield f"the certificate in {certificate.source} expires in {_ago(certificate.left)}"
