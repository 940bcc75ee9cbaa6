"""A certificate with its key, read from PEM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a certificate says. ``names``: host names in lower case, and IP addresses. ``fingerprint``: SHA-256, hex."""

    names: tuple[str, ...]
    begins: datetime
    ends: datetime
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``text``: the certificate, those that lead to its CA, and the key, as one file of PEM."""

    shown: Shown
    text: str = field(repr=False)


def pair(certificate: bytes, key: bytes) -> Pair:
    """The certificate at the beginning of the one file, with the key in the other; both may be the same file.

    Raises ValueError, which says what is wrong, and ImportError without ``cryptography``.
    """
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        chain = x509.load_pem_x509_certificates(certificate)
    except ValueError:
        raise ValueError("it holds no certificate (PEM)") from None
    try:
        loaded: Any = serialization.load_pem_private_key(_only_key(key), password=None)
    except TypeError:
        raise ValueError("the key has a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("there is no private key (PEM)") from None
    if loaded.public_key() != chain[0].public_key():
        raise ValueError("the key is not that of the certificate")
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    texts = [*(one.public_bytes(encoding) for one in chain)]
    texts.append(loaded.private_bytes(encoding, form, serialization.NoEncryption()))
    return Pair(shown=_shown(chain[0]), text=b"".join(texts).decode())


def _only_key(text: bytes) -> bytes:
    """The file from its key on: before it may be parameters of the key (``openssl ecparam``), or certificates."""
    begin = next((text.rfind(b"-----BEGIN", 0, at) for at in [text.find(b"PRIVATE KEY-----")] if at >= 0), 0)
    return text[max(begin, 0) :]


def shown(der: bytes) -> Shown:
    """What a certificate says, as a server has sent it. Raises ValueError, ImportError."""
    from cryptography import x509

    return _shown(x509.load_der_x509_certificate(der))


def _shown(certificate: Any) -> Shown:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    names: list[str] = []
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += (name.lower() for name in found.get_values_for_type(x509.DNSName))
        names += (str(address) for address in found.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        pass  # clients take a name from nowhere else (RFC 9110, 4.3.4)
    return Shown(
        names=tuple(names),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def uncovered(names: Sequence[str], wanted: Iterable[str]) -> tuple[str, ...]:
    """Those of ``wanted`` that a certificate with ``names`` does not stand for."""
    return tuple(name for name in wanted if not any(_covers(one, name) for one in names))


def _covers(name: str, wanted: str) -> bool:
    """Whether a name of a certificate stands for ``wanted``; ``*`` stands for one label (RFC 6125)."""
    try:
        return str(ip_address(wanted)) == name
    except ValueError:
        pass
    wanted = wanted.lower().rstrip(".")
    head, dot, rest = wanted.partition(".")
    return name == wanted or bool(head and dot and name == f"*.{rest}")
