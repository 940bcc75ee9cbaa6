"""The certificate for HTTPS of a deployment: that in the operator's files, or one of a CA of its own.

The CA is kept in the deployment's private state directory on this host (0600), and the server never has its key. It can
sign for the deployment's names only. So certificates are renewed without a change for clients.
"""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployer.certificates.authority import Authority
from deployer.certificates.pair import Pair, Shown, pair, shown, uncovered
from deployer.deployment.server_dir import ServerDir
from deployer.diagnosis.tls import Seen
from deployer.errors import ConflictError, EngineError, NotReadyError, UsageError
from deployer.files import write_private
from deployer.host.state_dir import state_dir
from deployer.plan.facts import CertificateFacts
from deployer.plan.tls import names as all_names
from deployer.protocol import PrivateFile
from deployer.spec import State

if TYPE_CHECKING:
    from deployer.profile.models import Network

VALID, RENEWED = timedelta(days=397), timedelta(days=60)
"""How long a certificate of our own CA is valid, and the time before its end at which the next one is made."""
AUTHORITY_VALID = timedelta(days=3650)
_FILE = PrivateFile.TLS.relative
_READ = timedelta(seconds=30)
"""Time for a server to show a new certificate."""
_LOOK, _PATIENCE = 0.2, 3.0
"""Seconds between two looks, and for one answer."""
_LIMIT = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The files of our own CA."""

    directory: Path

    @classmethod
    def of(cls, name: str) -> Kept:
        return cls(directory=state_dir(name) / "tls")

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def ca_key(self) -> Path:
        return self.directory / "ca-key.pem"

    @property
    def server(self) -> Path:
        """The certificate of the server, and its key."""
        return self.directory / "server.pem"

    def authority(self) -> Authority | None:
        """The CA; None when there is none. Raises ConflictError when it is damaged."""
        try:
            return Authority.loaded(self.ca.read_text(), self.ca_key.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConflictError(
                f"the CA in {self.directory} can't be used: {error}",
                hint=f"mv {self.directory} {self.directory}.old, then deployer up; clients need the new CA",
            ) from None

    def pair(self) -> Pair | None:
        """The certificate of the server; None when there is none that can be used."""
        with suppress(OSError, ValueError):
            text = self.server.read_bytes()
            return pair(text, text)
        return None


def facts(network: Network, name: str, *, home: Path, now: datetime | None = None) -> CertificateFacts | None:
    """Look at the certificate that the deployment ``name`` is to have; None without HTTPS.

    Raises UsageError without ``cryptography``, ConflictError when the CA is damaged.
    """
    if not network.tls.cert:
        return None
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise UsageError(
            "network.tls needs the package cryptography, which is not installed",
            hint="pip install 'devpi-deployer[tls]'",
        ) from None
    now = now or datetime.now(UTC)
    if network.tls.cert == "auto":
        return _own(Kept.of(name), all_names(network, socket.gethostname()), now)
    return _given(_path(network.tls.cert, home), _path(network.tls.key, home), now)


def forget(name: str) -> None:
    """Remove our own CA of the deployment ``name``, and the certificate."""
    shutil.rmtree(Kept.of(name).directory, ignore_errors=True)


def _path(text: str, home: Path) -> Path:
    return home / text[2:] if text.startswith("~/") else Path(text)


def _own(kept: Kept, wanted: Sequence[str], now: datetime) -> CertificateFacts:
    authority, found = kept.authority(), kept.pair()
    anew = _why_anew(authority, wanted, now)
    source = str(kept.server)
    if anew or found is None or uncovered(found.shown.names, wanted) or found.shown.ends - now < RENEWED:
        return CertificateFacts(
            own_ca=True, names=tuple(wanted), source=source, due=True, new_authority=anew if authority else ""
        )
    return _said(found.shown, now, own_ca=True, source=source)


def _why_anew(authority: Authority | None, wanted: Sequence[str], now: datetime) -> str:
    """Why there has to be another CA; empty when the present one can sign for ``wanted``."""
    if authority is None:
        return "this deployment"
    if missing := uncovered(authority.names, wanted):
        return ", ".join(missing)
    return "the next ten years" if authority.ends - now < RENEWED else ""


def _given(certificate: Path, key: Path, now: datetime) -> CertificateFacts:
    source = str(certificate)
    try:
        found = read(certificate, key)
    except ConflictError as error:
        return CertificateFacts(own_ca=False, source=source, problem=error.message)
    open_key = str(key) if key.stat().st_mode & 0o004 else ""
    return _said(found.shown, now, own_ca=False, source=source, open_key=open_key)


def _said(found: Shown, now: datetime, *, own_ca: bool, source: str, open_key: str = "") -> CertificateFacts:
    return CertificateFacts(
        own_ca=own_ca,
        names=found.names,
        source=source,
        begins=found.begins - now,
        left=found.ends - now,
        fingerprint=found.fingerprint,
        open_key=open_key,
    )


def read(certificate: Path, key: Path) -> Pair:
    """The operator's certificate and key. Raises ConflictError."""
    texts = []
    for path in (certificate, key):
        try:
            with path.open("rb") as stream:
                texts.append(stream.read(_LIMIT))
        except OSError as error:
            raise ConflictError(
                f"{path} can't be read: {error.strerror}", hint=f"correct its owner and mode: ls -ld {path}"
            ) from None
    try:
        return pair(*texts)
    except ValueError as error:
        raise ConflictError(
            f"{certificate} with {key}: {error}", hint=f"openssl x509 -noout -text -in {certificate}"
        ) from None


def obtain(network: Network, name: str, planned: CertificateFacts, *, home: Path, rollback: ExitStack) -> Pair:
    """The certificate that was planned; one of our own CA is made if it is due. Raises ConflictError."""
    if not planned.own_ca:
        return read(_path(network.tls.cert, home), _path(network.tls.key, home))
    kept = Kept.of(name)
    found = kept.pair()
    if found is not None and not planned.due:
        return found
    _keep_former(kept, rollback)
    now, wanted = datetime.now(UTC), planned.names
    authority = kept.authority()
    if authority is None or _why_anew(authority, wanted, now):
        authority = Authority.made(wanted, now, title=f"deployer, CA of {name[:40]}", valid=AUTHORITY_VALID)
        write_private(kept.ca_key, authority.key_text)
        write_private(kept.ca, authority.certificate)
    chain, key = authority.signed(wanted, now, valid=VALID)
    write_private(kept.server, chain + key)
    return pair(chain.encode(), key.encode())


def _keep_former(kept: Kept, rollback: ExitStack) -> None:
    """Have a rollback restore the files as they are."""
    former = {path: path.read_text() for path in (kept.ca_key, kept.ca, kept.server) if path.exists()}

    def restore() -> None:
        with suppress(OSError, ConflictError):
            shutil.rmtree(kept.directory)
            for path, text in former.items():
                write_private(path, text)

    rollback.callback(restore)


# The server's copy


def known(server_dir: ServerDir) -> Pair | None:
    """The certificate that the server has been given; None when there is none. Raises EngineError."""
    text = (server_dir.read(_FILE) or "").encode()
    with suppress(ValueError):
        return pair(text, text)
    return None


def hand_over(server_dir: ServerDir, wanted: Pair, rollback: ExitStack) -> bool:
    """Give the certificate to the server; whether it is another one than before. Raises EngineError."""
    former = known(server_dir)
    if former is not None and former.text == wanted.text:
        return False
    if former is not None:
        rollback.callback(_hand_back, server_dir, former)
    server_dir.write(_FILE, wanted.text, verb=("store", "tls"))
    return True


def _hand_back(server_dir: ServerDir, former: Pair) -> None:
    with suppress(EngineError, ConflictError):
        server_dir.write(_FILE, former.text, verb=("store", "tls"))


def hand_over_early(server_dir: ServerDir, wanted: Pair, rollback: ExitStack) -> bool:
    """As :func:`hand_over`, where that is possible before the server runs: in a directory of this host."""
    if server_dir.path is None:
        return False
    from deployer.host import untrusted

    with suppress(OSError, untrusted.Untrusted):
        untrusted.make_directory(server_dir.path, str(Path(_FILE).parent))
        if os.access(server_dir.path / Path(_FILE).parent, os.W_OK):
            return hand_over(server_dir, wanted, rollback)
    return False


def hand_over_late(server_dir: ServerDir, wanted: Pair, rollback: ExitStack) -> bool:
    """As :func:`hand_over`, to a server that has just been started. One that has ended is left to the readiness."""
    try:
        return hand_over(server_dir, wanted, rollback)
    except EngineError:
        found = server_dir.engine.inspect(server_dir.container)
        if found is not None and found.state is State.RUNNING:
            raise
        return False


# What is served


def served(url: str) -> bytes | None:
    """The certificate (DER) that is shown at an https address of this host; None when nothing answers."""
    parts = urlsplit(url)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is only looked at
    try:
        with (
            socket.create_connection((parts.hostname or "", parts.port or 443), timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=parts.hostname) as connection,
        ):
            return connection.getpeercert(binary_form=True)
    except (OSError, ValueError):
        return None


def seen(url: str) -> Seen:
    """What is served at the address of HTTPS."""
    found = served(url)
    if found is None:
        return Seen(url=url)
    try:
        said = shown(found)
    except (ImportError, ValueError):
        return Seen(url=url, answers=True)
    return Seen(url=url, answers=True, names=said.names, left=said.ends - datetime.now(UTC))


def wait_served(url: str, fingerprint: str, *, deadline: timedelta = _READ) -> None:
    """Wait until the certificate is shown at ``url``. Raises NotReadyError."""
    until = time.monotonic() + deadline.total_seconds()
    while True:
        found = served(url)
        if found is not None and shown(found).fingerprint == fingerprint:
            return
        if time.monotonic() > until:
            why = "nothing answers" if found is None else "it still shows the former certificate"
            raise NotReadyError(f"{url}: {why}", hint="deployer logs")
        time.sleep(_LOOK)
