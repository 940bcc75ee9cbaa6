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

from deployer.certificates.authority import Authority
from deployer.errors import ClientFileError, UsageError
from deployer.files import PRIVATE, replacing

RENEWED = timedelta(days=1)
"""Age after which a new command gets a new CA."""
VALID = timedelta(days=30)
"""How long a certificate holds: the longest life of one command or shell."""


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
        ca = _made(names, now)
        chain, key = ca.signed(names, now, valid=VALID)
        for path, text in ((found.ca, ca.certificate), (found.chain, chain), (found.key, key)):
            # The key is the last one: with it the directory is complete.
            with replacing(path, mode=PRIVATE, durable=False) as stream:
                stream.write(text.encode())
    except OSError as error:
        raise ClientFileError(
            f"{directory} can't be written: {error.strerror}", hint=f"correct its mode and owner: ls -ld {directory}"
        ) from None
    return found


def _made(names: Sequence[str], now: datetime) -> Authority:
    """A CA that clients trust for these names and for nothing else. Raises UsageError without ``cryptography``."""
    try:
        return Authority.made(names, now, title=f"deployer, for {names[0][:40]} on this host", valid=VALID)
    except ImportError:
        raise UsageError(
            "--transparent needs the package cryptography, which is not installed",
            hint="pip install 'devpi-deployer[transparent]'",
        ) from None


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
