"""Signatures of bundles, in the format of ``ssh-keygen -Y sign`` (OpenSSH's PROTOCOL.sshsig), with Ed25519 keys.

People have such keys, and a machine without deployer verifies with ``ssh-keygen -Y verify``. The ``cryptography``
package signs and verifies; only the extra ``sign`` needs it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from deployer import DISTRIBUTION
from deployer.errors import UsageError, VerificationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NAMESPACE = "deployer-bundle"
"""What the signature is for: one for another purpose is invalid here."""
_MAGIC, _KIND, _HASH = b"SSHSIG", b"ssh-ed25519", b"sha512"
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
LARGEST = 64 << 10
"""Bytes of the largest key or signature that is read."""


def private_key(path: Path) -> Ed25519PrivateKey:
    """Read an OpenSSH private key without a passphrase. Raises UsageError."""
    _require_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    try:
        key = load_ssh_private_key(_read(path), password=None)
    except TypeError:
        raise UsageError(f"{path} has a passphrase", hint="use a key without one, on an encrypted disk") from None
    except (ValueError, UnsupportedAlgorithm):
        pass
    else:
        if isinstance(key, Ed25519PrivateKey):
            return key
    raise UsageError(f"{path} is no Ed25519 key of OpenSSH", hint="make one: ssh-keygen -t ed25519 -f bundle.key")


def public_keys(path: Path) -> tuple[Ed25519PublicKey, ...]:
    """Read OpenSSH public keys, one a line. Raises UsageError."""
    _require_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    found = []
    for line in _read(path).splitlines():
        start = line.find(_KIND)  # of an allowed_signers file, names stand before the key
        try:
            key = load_ssh_public_key(line[start:]) if start >= 0 else None
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, Ed25519PublicKey):
            found.append(key)
    if not found:
        raise UsageError(f"{path} has no public Ed25519 key", hint="give the file that ssh-keygen named *.pub")
    return tuple(found)


def sign(message: bytes, key: Ed25519PrivateKey) -> str:
    """The signature of ``message``, as text."""
    signature = key.sign(_signed(message))
    blob = _MAGIC + struct.pack(">I", 1)
    for part in (_public(key.public_key()), NAMESPACE.encode(), b"", _HASH, _string(_KIND) + _string(signature)):
        blob += _string(part)
    text = base64.b64encode(blob).decode()
    lines = [text[start : start + 70] for start in range(0, len(text), 70)]
    return "\n".join((_BEGIN, *lines, _END, ""))


def verify(message: bytes, signature: bytes, keys: tuple[Ed25519PublicKey, ...]) -> None:
    """Raises VerificationError unless one of ``keys`` has signed ``message``."""
    from cryptography.exceptions import InvalidSignature

    try:
        public, raw = _parts(signature)
        for key in keys:
            if _public(key) == public:
                key.verify(raw, _signed(message))
                return
    except InvalidSignature:
        raise VerificationError(
            "the signature does not fit: the bundle was changed", hint="get the bundle again"
        ) from None
    except (ValueError, struct.error):
        raise VerificationError("the signature is invalid", hint="get the bundle again") from None
    raise VerificationError("the bundle is signed with another key", hint="give the right one with --verify KEY")


def _signed(message: bytes) -> bytes:
    parts = (NAMESPACE.encode(), b"", _HASH, hashlib.sha512(message).digest())
    return _MAGIC + b"".join(map(_string, parts))


def _public(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _string(_KIND) + _string(key.public_bytes(Encoding.Raw, PublicFormat.Raw))


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _parts(text: bytes) -> tuple[bytes, bytes]:
    """The public key and the raw signature. Raises ValueError, struct.error."""
    body = text.decode("ascii").strip()
    if not body.startswith(_BEGIN) or not body.endswith(_END):
        raise ValueError("no signature")
    blob = base64.b64decode("".join(body.removeprefix(_BEGIN).removesuffix(_END).split()), validate=True)
    if blob[:6] != _MAGIC or struct.unpack_from(">I", blob, 6) != (1,):
        raise ValueError("another format")
    public, rest = _cut(blob[10:])
    namespace, rest = _cut(rest)
    _reserved, rest = _cut(rest)
    hashed, rest = _cut(rest)
    signature, rest = _cut(rest)
    kind, inner = _cut(signature)
    raw, more = _cut(inner)
    if (namespace, hashed, kind) != (NAMESPACE.encode(), _HASH, _KIND) or rest or more:
        raise ValueError("a signature for another purpose")
    return public, raw


def _cut(data: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack_from(">I", data)
    if length > len(data) - 4:
        raise ValueError("it breaks off")
    return data[4 : 4 + length], data[4 + length :]


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST)
    except OSError as error:
        raise UsageError(f"the key {path} can't be read: {error.strerror}", hint="give the file of a key") from None


def _require_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise UsageError(
            "signatures need the cryptography package", hint=f"pip install '{DISTRIBUTION}[sign]'"
        ) from None
