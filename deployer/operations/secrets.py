"""The secrets of a deployment in a backup: encrypted to an age key, or left out.

They are root's password and the key that signs logins and upload tokens. The passwords of other users are in the
database, as hashes, and so in every backup.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from deployer import DISTRIBUTION
from deployer.errors import ConflictError, ProfileError, VerificationError
from deployer.operations.prepare import Prepared
from deployer.protocol import PrivateFile, parsed

KEPT = (PrivateFile.ROOT_PASSWORD, PrivateFile.SECRET)


def _age() -> Any:
    try:
        return import_module("pyrage")
    except ImportError:
        raise ConflictError(
            "secrets can't be encrypted: the package pyrage is not installed",
            hint=f"pip install '{DISTRIBUTION}[age]', or leave backup.recipient empty",
        ) from None


def encrypted(prepared: Prepared, recipient: str) -> str:
    """The secrets of the deployment, encrypted to ``recipient`` (``age1…``), in hexadecimal; empty without one.

    Raises ProfileError for an invalid key, ConflictError without the library.
    """
    if not recipient:
        return ""
    age = _age()
    held = {kind.value: prepared.server_dir.read(kind.relative) for kind in KEPT}
    text = json.dumps({name: value + "\n" for name, value in held.items() if value})
    try:
        key = age.x25519.Recipient.from_str(recipient)
        sealed: bytes = age.encrypt(text.encode(), [key])
    except (age.RecipientError, age.EncryptError) as error:
        raise ProfileError(f"backup.recipient: {error}", hint="set the public key of age-keygen: age1…") from None
    return sealed.hex()


def decrypted(sealed: str, identity: Path) -> dict[str, str]:
    """The secrets of a backup. ``identity``: the file that age-keygen wrote.

    Raises ConflictError, VerificationError.
    """
    age = _age()
    try:
        lines = identity.read_text(encoding="utf-8").splitlines()
        keys = [age.x25519.Identity.from_str(line.strip()) for line in lines if line.startswith("AGE-SECRET-KEY-")]
    except (OSError, ValueError, age.IdentityError) as error:
        raise ConflictError(f"{identity} can't be read: {error}", hint="name the file of age-keygen") from None
    try:
        found: dict[str, str] = parsed(age.decrypt(bytes.fromhex(sealed), keys))
    except (age.DecryptError, ValueError) as error:
        raise VerificationError(f"the secrets can't be decrypted: {error}", hint="name the right key") from None
    return found
