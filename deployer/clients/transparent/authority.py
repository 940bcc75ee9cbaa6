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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shutil import rmtree

from deployer.errors import ClientFileError, UsageError
from deployer.files import PRIVATE, replacing

RENEWED = timedelta(days=1)
"""Age after which a new command gets a new CA."""
VALID = timedelta(days=30)
"""How long a certificate holds: the longest life of one command or shell."""
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
        ca, chain, key = _signed(names, now)
        for path, text in ((found.ca, ca), (found.chain, chain), (found.key, key)):
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


def _signed(names: Sequence[str], now: datetime) -> tuple[str, str, str]:
    """CA, chain and key as PEM. Only here does the CA's key exist."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        raise UsageError(
            "--transparent needs the package cryptography, which is not installed",
            hint="pip install 'devpi-deployer[transparent]'",
        ) from None
    from ipaddress import ip_network

    def begun(subject: str, issuer: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        def name(common: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])

        builder = x509.CertificateBuilder(subject_name=name(subject), issuer_name=name(issuer))
        builder = builder.public_key(public).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - _EARLIER).not_valid_after(now + VALID)
        server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        return builder.add_extension(server, critical=False)

    def usage(*, signs: bool) -> x509.KeyUsage:
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

    of_ca, of_leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    title = f"deployer, for {names[0][:40]} on this host"
    identifier = x509.SubjectKeyIdentifier.from_public_key(of_ca.public_key())
    constraints = x509.NameConstraints(
        permitted_subtrees=[x509.DNSName(name) for name in names],
        excluded_subtrees=[x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0"))],
    )
    ca = (
        begun(title, title, of_ca.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage(signs=True), critical=True)
        .add_extension(constraints, critical=True)
        .add_extension(identifier, critical=False)
        .sign(of_ca, hashes.SHA256())
    )
    alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    leaf = (
        begun(names[0] if len(names[0]) <= 64 else "", title, of_leaf.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage(signs=False), critical=True)
        .add_extension(alternatives, critical=len(names[0]) > 64)
        .add_extension(authority, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(of_leaf.public_key()), critical=False)
        .sign(of_ca, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    key = of_leaf.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    first, second = (one.public_bytes(pem).decode() for one in (leaf, ca))
    return second, first + second, key.decode()
