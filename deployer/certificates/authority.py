"""A CA that can sign for the names that it was made for, and for nothing else (RFC 5280, 4.2.1.10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

_COMMON_NAME = 64
"""Letters that a certificate's subject may have (RFC 5280)."""
_EARLIER = timedelta(minutes=10)
"""The beginning of its validity lies in the past: clocks differ."""


@dataclass(frozen=True, kw_only=True)
class Authority:
    """``certificate``: as PEM. ``names``: host names and IP addresses that it may sign for."""

    certificate: str
    key: Any = field(repr=False)
    title: str
    names: tuple[str, ...]
    ends: datetime

    @classmethod
    def made(cls, names: Sequence[str], now: datetime, *, title: str, valid: timedelta) -> Authority:
        """A new CA for these names. Raises ImportError without ``cryptography``."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        hosts, addresses = _split(names)
        every = [x509.IPAddress(ip_network(text)) for text in ("0.0.0.0/0", "::/0")]
        permitted = [*map(x509.DNSName, hosts), *(x509.IPAddress(ip_network(address)) for address in addresses)]
        constraints = x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None if addresses else every)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _begun(title, title, key.public_key(), now, now + valid)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        builder = builder.add_extension(constraints, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        text = _signed(builder.add_extension(identifier, critical=False), key)
        return cls(certificate=text, key=key, title=title, names=tuple(names), ends=now + valid)

    @classmethod
    def loaded(cls, certificate: str, key: str) -> Authority:
        """A CA that was kept. Raises ValueError when it is damaged, ImportError without ``cryptography``."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        found = x509.load_pem_x509_certificate(certificate.encode())
        loaded: Any = load_pem_private_key(key.encode(), password=None)
        if loaded.public_key() != found.public_key():
            raise ValueError("the key is not that of the certificate")
        try:
            limits = found.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            raise ValueError("it is not limited to names") from None
        names = []
        for name in limits.permitted_subtrees or ():
            network = isinstance(name, x509.IPAddress)
            names.append(str(getattr(name.value, "network_address", "")) if network else str(name.value))
        title = str(found.subject.rdns[0].get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
        ends = found.not_valid_after_utc
        return cls(certificate=certificate, key=loaded, title=title, names=tuple(names), ends=ends)

    @property
    def key_text(self) -> str:
        """Its key, as PEM."""
        return _pem(self.key)

    def signed(self, names: Sequence[str], now: datetime, *, valid: timedelta) -> tuple[str, str]:
        """A certificate for these names, with the CA's own after it, and its key, as PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        hosts, addresses = _split(names)
        # OpenSSL takes an address there for a host name, for which the CA may not sign.
        subject = next((host for host in hosts if len(host) <= _COMMON_NAME), "")
        alternatives = x509.SubjectAlternativeName(
            [*map(x509.DNSName, hosts), *(x509.IPAddress(ip_address(address)) for address in addresses)]
        )
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = _begun(subject, self.title, key.public_key(), now, min(now + valid, self.ends))
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(alternatives, critical=not subject)
        builder = builder.add_extension(issuer, critical=False)
        return _signed(builder, self.key) + self.certificate, _pem(key)


def _split(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The host names, and the IP addresses."""
    hosts: list[str] = []
    addresses: list[str] = []
    for name in names:
        try:
            addresses.append(str(ip_address(name)))
        except ValueError:
            hosts.append(name)
    return hosts, addresses


def _begun(subject: str, issuer: str, public: Any, now: datetime, ends: datetime) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])

    builder = x509.CertificateBuilder(subject_name=name(subject), issuer_name=name(issuer))
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _EARLIER).not_valid_after(ends)
    return builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)


def _usage(*, signs: bool) -> Any:
    """Of a CA, or of a server."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: Any, key: Any) -> str:
    from cryptography.hazmat.primitives import hashes, serialization

    return str(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode())


def _pem(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return str(key.private_bytes(encoding, form, serialization.NoEncryption()).decode())
