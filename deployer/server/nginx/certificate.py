"""The certificate for HTTPS: one private file with the chain and the key, which the command line replaces.

Both are in one file, so that nginx never reads a certificate with the key of another one.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from deployer.protocol import ExitCode, Refusal
from deployer.server.nginx.program import log_line

PATIENCE = 60.0
"""Seconds to wait for the first certificate: ``up`` brings it once the container runs."""
_WAIT = 0.1
_LOOK = 1.0
"""Seconds between two looks at the file."""


def mark(path: Path) -> str:
    """Changes whenever the file is replaced; empty when it is absent."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"


def wait(path: Path) -> None:
    """Wait for the certificate. Raises Refusal when none comes."""
    deadline = time.monotonic() + PATIENCE
    if not mark(path):
        log_line("waiting for the certificate: python -m deployer.server store tls --serverdir DIRECTORY <CERT_AND_KEY")
    while not mark(path):
        if time.monotonic() > deadline:
            raise Refusal(f"there is no certificate in {path}", hint="deployer up", code=ExitCode.CONFLICT)
        time.sleep(_WAIT)


def watch(path: Path, seen: str, renew: Callable[[], None]) -> None:
    """Call ``renew`` from a thread whenever the file is another one than ``seen``, and can be used."""
    threading.Thread(target=_watch, args=(path, seen, renew), name="certificate", daemon=True).start()


def _watch(path: Path, seen: str, renew: Callable[[], None]) -> None:
    while True:
        now = mark(path)
        if now and now != seen:
            seen = now
            if why := unusable(path):
                log_line(f"{path} is not used: {why}; the former certificate stays")
            else:
                renew()
                log_line("nginx has read the new certificate")
        time.sleep(_LOOK)


def unusable(path: Path) -> str:
    """Why nginx can't use the file: no certificate, no key, or the key of another certificate; empty if it can."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path, password=lambda: "")
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", "") or error)
    return ""


def expiry(path: Path) -> float | None:
    """When the certificate expires, in seconds since the epoch; None without one, or without ``cryptography``."""
    try:
        from cryptography import x509  # late: it takes longer to load than all else here

        return x509.load_pem_x509_certificates(path.read_bytes())[0].not_valid_after_utc.timestamp()
    except (OSError, ImportError, ValueError):
        return None
