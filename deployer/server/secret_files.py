"""The small files that the server keeps for itself in its directory: 0600, replaced atomically and durably."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

PRIVATE = ".deployer"


@dataclass(frozen=True)
class Private:
    """Our own corner of the server directory, 0700, and what is in it, 0600."""

    directory: Path

    @classmethod
    def of(cls, serverdir: Path) -> Private:
        return cls(serverdir / PRIVATE)

    @property
    def root_password(self) -> Path:
        return self.directory / "root-password"

    @property
    def next_root_password(self) -> Path:
        """A password that is about to become root's."""
        return self.directory / "root-password.next"

    @property
    def secret(self) -> Path:
        """devpi's secret file, with which tokens are signed."""
        return self.directory / "secret"

    @property
    def proof_key(self) -> Path:
        """With this the server proves that it runs on this directory, and on no other."""
        return self.directory / "proof-key"

    @property
    def credentials(self) -> Path:
        """What the upstreams of mirrors want to see, by their addresses."""
        return self.directory / "credentials"

    @property
    def unfinished(self) -> Path:
        """There while the first boot is under way."""
        return self.directory / "first-boot"

    @property
    def running(self) -> Path:
        """There from start to clean stop; in it the address and the port of the server."""
        return self.directory / "running"

    @property
    def offline(self) -> Path:
        """What the server was told last while it ran: ``on`` or ``off``."""
        return self.directory / "offline"

    @property
    def moving(self) -> Path:
        """There while the directory is a copy that is not whole; in it where it is copied from."""
        return self.directory / "moving"

    @property
    def moved(self) -> Path:
        """There while the directory is a whole copy on which no server has run."""
        return self.directory / "moved"

    @property
    def front(self) -> Path:
        """There while a server runs; in it who answers clients, and why it is not nginx."""
        return self.directory / "front"

    @property
    def access_log(self) -> Path:
        """One line a request, by nginx; older ones beside it, numbered."""
        return self.directory / "log" / "access.log"

    @property
    def temporary(self) -> Path:
        """What is of use only while it is open; empty after a start."""
        return self.directory / "tmp"

    @property
    def nginx_pid(self) -> Path:
        return self.directory / "run" / "nginx.pid"

    @property
    def statistics(self) -> Path:
        """What clients and upstreams were served and asked, as JSON."""
        return self.directory / "statistics.json"

    @property
    def backups(self) -> Path:
        return self.directory / "backups"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, atomically, 0600 from the first moment, and durably once this returns."""
    temporary = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file that may be absent, durably: what it stood for must not come back after a power loss."""
    path.unlink(missing_ok=True)
    sync(path.parent)


def sync(directory: Path) -> None:
    """Bring the names in a directory to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str | None:
    """The text of a small file, stripped; None when it is absent or empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def ensure_keys(private: Private) -> None:
    """The keys that the server generates for itself, where they are missing."""
    if read_text(private.secret) is None:
        write_private(private.secret, secrets.token_urlsafe(48))
    if read_text(private.proof_key) is None:
        write_private(private.proof_key, secrets.token_hex(32))


def new_password(path: Path) -> str:
    """Generate a password and keep it at ``path`` before it is valid anywhere."""
    while (password := secrets.token_urlsafe(32)).startswith("-"):
        pass  # other programs would take it for an option: devpi login root --password ...
    write_private(path, password + "\n")
    return password
