"""The certificate with which the tunnel answers for an upstream's hosts, and the CA that only our commands trust.

The CA can sign for exactly these names and for nothing else, and its key is thrown away when it has signed one
certificate. That certificate's key is kept in the user's private state directory (0600), so that the next command need
not make another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

from deployer.errors import ClientFileError, UsageError
from deployer.files import PRIVATE, replacing

RENEWED = timedelta(days=1)
"""Age after which a new command gets a new CA."""
VALID = timedelta(days=30)
"""How long a certificate holds: the longest life of one command or shell."""
_COMMON_NAME = 64
"""Letters that a certificate's subject may have (RFC 5280)."""
_EARLIER = timedelta(minutes=10)
"""The beginning of its validity lies in the past: clocks differ."""


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Files: ``chain`` (the certificate and its CA), ``key``, ``ca`` (what a client has to trust)."""

    chain: Path
    key: Path
    ca: Path

    @classmethod
    def below(cls, directory: Path) -> Certificate:
        return cls(chain=directory / "chain.pem", key=directory / "key.pem", ca=directory / "ca.pem")


def certificate(names: Sequence[str], *, directory: Path, now: datetime | None = None) -> Certificate:
    """The certificate for these host names; one that was made here less than a day ago, or a new one.

    ``directory``: private to this user. What has expired is removed from it. Raises UsageError without the package that
    makes certificates, ClientFileError when the directory can't be written.
    """
    now = now or datetime.now(UTC)
    names = sorted(set(names))
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        newest = _remove_expired(directory, digest, now)
        if newest is not None:
            return Certificate.below(newest)
        made = directory / f"{digest}-{int(now.timestamp())}-{os.getpid()}"
        made.mkdir(mode=0o700)
        found = Certificate.below(made)
        ca = Authority.made(names, now)
        chain, key = ca.signed(names)
        for path, text in ((found.ca, ca.certificate), (found.chain, chain), (found.key, key)):
            # The key is the last one: with it the directory is complete.
            with replacing(path, mode=PRIVATE, durable=False) as stream:
                stream.write(text.encode())
    except OSError as error:
        raise ClientFileError(
            f"{directory} can't be written: {error.strerror}", hint=f"correct its mode and owner: ls -ld {directory}"
        ) from None
    return found


def _remove_expired(directory: Path, digest: str, now: datetime) -> Path | None:
    """Remove what no certificate of is valid any more; the newest directory for ``digest`` that may be used again."""
    newest: tuple[float, Path] | None = None
    for path in directory.iterdir():
        name, _, rest = path.name.partition("-")
        with suppress(ValueError):
            made = int(rest.partition("-")[0])
            age = timedelta(seconds=now.timestamp() - made)
            if age > VALID:
                rmtree(path, ignore_errors=True)
            elif name == digest and timedelta() <= age < RENEWED and Certificate.below(path).key.exists():
                newest = max(newest or (0.0, path), (made, path))
    return newest[1] if newest else None


@dataclass(frozen=True, kw_only=True)
class Authority:
    """A CA whose key exists in memory alone. ``certificate``: as PEM."""

    certificate: str
    key: Any = field(repr=False)
    title: str
    now: datetime

    @classmethod
    def made(cls, names: Sequence[str], now: datetime) -> Authority:
        """A CA that clients trust for these names and for nothing else. Raises UsageError without ``cryptography``."""
        try:
            from cryptography import x509
            from cryptography.hazmat.primitives.asymmetric import ec
        except ImportError:
            raise UsageError(
                "--transparent needs the package cryptography, which is not installed",
                hint="pip install 'devpi-deployer[transparent]'",
            ) from None
        from ipaddress import ip_network

        key = ec.generate_private_key(ec.SECP256R1())
        title = f"deployer, for {names[0][:40]} on this host"
        constraints = x509.NameConstraints(
            permitted_subtrees=[x509.DNSName(name) for name in names],
            excluded_subtrees=[x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))],
        )
        builder = _begun(title, title, key.public_key(), now)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs=True), critical=True)
        builder = builder.add_extension(constraints, critical=True)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        return cls(
            certificate=_signed(builder.add_extension(identifier, critical=False), key), key=key, title=title, now=now
        )

    def signed(self, names: Sequence[str]) -> tuple[str, str]:
        """A certificate for these names, with the CA's own after it, and its key, as PEM."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        subject = names[0] if len(names[0]) <= _COMMON_NAME else ""
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        identifier = x509.SubjectKeyIdentifier.from_public_key(self.key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = _begun(subject, self.title, key.public_key(), self.now)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs=False), critical=True)
        builder = builder.add_extension(alternatives, critical=not subject)
        builder = builder.add_extension(issuer, critical=False)
        encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        text = key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
        return _signed(builder, self.key) + self.certificate, text


def _begun(subject: str, issuer: str, public: Any, now: datetime) -> Any:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])

    builder = x509.CertificateBuilder(subject_name=name(subject), issuer_name=name(issuer))
    builder = builder.public_key(public).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - _EARLIER).not_valid_after(now + VALID)
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
