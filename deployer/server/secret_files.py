"""deployer's own files in the server directory: private (0600), and replaced atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from deployer.protocol import PRIVATE, PrivateFile

RESERVE = 32 << 20
"""Bytes of the disk that nothing of an upstream takes (of a small disk a twentieth): the database needs them."""


@dataclass(frozen=True)
class Private:
    """Paths of deployer's own directory (0700) below the server directory, and of the files in it (0600)."""

    directory: Path
    lock_held: int = field(default=-1, compare=False)
    """The descriptor that holds the lock of the server directory, where this process does."""

    @classmethod
    def of(cls, serverdir: Path) -> Private:
        return cls(serverdir / PRIVATE)

    @property
    def root_password(self) -> Path:
        return self.directory / PrivateFile.ROOT_PASSWORD

    @property
    def next_root_password(self) -> Path:
        """Root's next password, until devpi has stored its hash."""
        return self.directory / PrivateFile.NEXT_ROOT_PASSWORD

    @property
    def reset_root(self) -> Path:
        """Present in data that was restored without root's password: the next start gives root a new one."""
        return self.directory / PrivateFile.RESET_ROOT

    @property
    def secret(self) -> Path:
        """devpi's secret file, which signs login tokens."""
        return self.directory / PrivateFile.SECRET

    @property
    def proof_key(self) -> Path:
        """The key of the identity proof (hex): it proves that a server runs on this directory."""
        return self.directory / PrivateFile.PROOF_KEY

    @property
    def credentials(self) -> Path:
        """The Authorization headers for upstreams, by mirror URL (JSON)."""
        return self.directory / PrivateFile.CREDENTIALS

    @property
    def unfinished(self) -> Path:
        """Present during the first boot."""
        return self.directory / PrivateFile.FIRST_BOOT

    @property
    def running(self) -> Path:
        """Address and port of the server; present from a start to an orderly stop."""
        return self.directory / PrivateFile.RUNNING

    @property
    def offline(self) -> Path:
        """``on`` or ``off``: the last switch while the server ran."""
        return self.directory / PrivateFile.OFFLINE

    @property
    def moving(self) -> Path:
        """The source of an unfinished copy; present until the copy is complete and verified."""
        return self.directory / PrivateFile.MOVING

    @property
    def moved(self) -> Path:
        """Present in a complete copy on which no server has run yet."""
        return self.directory / PrivateFile.MOVED

    @property
    def front(self) -> Path:
        """``nginx VERSION``, or ``python: REASON`` where there is no nginx."""
        return self.directory / PrivateFile.FRONT

    @property
    def access_log(self) -> Path:
        """nginx's access log: one line of JSON per request. Rotated logs stand beside it, numbered."""
        return self.directory / PrivateFile.ACCESS_LOG

    @property
    def changes(self) -> Path:
        """Who changed what: one line of JSON each. Rotated logs stand beside it, numbered."""
        return self.directory / PrivateFile.CHANGES

    @property
    def refused(self) -> Path:
        """Which logins and writes were refused, alike."""
        return self.directory / PrivateFile.REFUSED

    @property
    def upstream(self) -> Path:
        """The pages of upstreams, as mirrors know them."""
        return self.directory / PrivateFile.UPSTREAM

    @property
    def companions(self) -> Path:
        """Metadata, provenance and signatures of mirrored files."""
        return self.directory / PrivateFile.COMPANIONS

    @property
    def malicious(self) -> Path:
        """The releases that are known to be malicious (:mod:`deployer.server.guard.malicious`)."""
        return self.directory / PrivateFile.MALICIOUS

    @property
    def owners(self) -> Path:
        """Who served the projects of ordered indexes first (:mod:`deployer.server.guard.owners`)."""
        return self.directory / PrivateFile.OWNERS

    @property
    def temporary(self) -> Path:
        """Temporary files; emptied at each start."""
        return self.directory / PrivateFile.TEMPORARY

    @property
    def nginx(self) -> Path:
        """nginx's configuration, socket and process id; present while nginx runs."""
        return self.directory / PrivateFile.NGINX

    @property
    def nginx_known(self) -> Path:
        """What an earlier start learned of nginx (:class:`deployer.server.nginx.known.Known`)."""
        return self.directory / PrivateFile.NGINX_KNOWN

    @property
    def nginx_pid(self) -> Path:
        return self.nginx / "nginx.pid"

    @property
    def statistics(self) -> Path:
        """Counts of requests, as JSON (:class:`deployer.protocol.Counted`)."""
        return self.directory / PrivateFile.STATISTICS

    @property
    def missed(self) -> Path:
        """What was asked for in vain while the server was offline (:class:`deployer.protocol.Missed`)."""
        return self.directory / PrivateFile.MISSED

    @property
    def inventory(self) -> Path:
        """What is cached and uploaded, when it came, and when it was used (:mod:`deployer.server.inventory`)."""
        return self.directory / PrivateFile.INVENTORY

    @property
    def declared(self) -> Path:
        """What the profile declares (:class:`deployer.protocol.Declared`)."""
        return self.directory / PrivateFile.DECLARED

    @property
    def backup(self) -> Path:
        """The last backup (:class:`deployer.protocol.LastBackup`)."""
        return self.directory / PrivateFile.BACKUP

    @property
    def pinned(self) -> Path:
        """The files that ``warm`` of the profile lists: they are never pruned (JSON)."""
        return self.directory / PrivateFile.PINNED

    @property
    def history(self) -> Path:
        """What happened hour by hour (:class:`deployer.protocol.HistoryFile`)."""
        return self.directory / PrivateFile.HISTORY

    @property
    def lock(self) -> Path:
        """Locked by the server that runs, or by what keeps one from running; a server writes its process id to it."""
        return self.directory / PrivateFile.LOCK

    @property
    def tls(self) -> Path:
        """The certificate for HTTPS, those that lead to its CA, and its key (PEM)."""
        return self.directory / PrivateFile.TLS

    @property
    def settings(self) -> Path:
        """The settings that the server has taken while it ran (:class:`deployer.protocol.Taken`)."""
        return self.directory / PrivateFile.SETTINGS

    @property
    def next_settings(self) -> Path:
        """The settings to take, until the server has begun with them."""
        return self.directory / PrivateFile.NEXT_SETTINGS

    @property
    def synced(self) -> Path:
        """Present in a replica that has had all of its primary's data once; the primary's uuid."""
        return self.directory / PrivateFile.SYNCED

    @property
    def diverged(self) -> Path:
        """Present in a replica that has commits which its primary lacks; says which."""
        return self.directory / PrivateFile.DIVERGED

    @property
    def promote(self) -> Path:
        """The order that a replica becomes the primary (JSON, :mod:`deployer.server.members.promotion`)."""
        return self.directory / PrivateFile.PROMOTE

    @property
    def arrived(self) -> Path:
        """Files of a replica that came for a client, until replication has stored them."""
        return self.directory / PrivateFile.ARRIVED

    @property
    def members(self) -> Path:
        """The uuids of the replicas that have reported to this primary (JSON)."""
        return self.directory / PrivateFile.MEMBERS


def write_private(path: Path, content: str | bytes, *, durable: bool = True, modified: int | None = None) -> None:
    """Replace ``path`` atomically; the file is 0600 from its first moment.

    ``durable``: wait until the disk has the file and its name. Without it a power loss may leave an empty file.
    ``modified``: the file's mtime, in seconds, from its first moment. Raises OSError; the previous file then stays.
    """
    temporary = str(temporary_of(path))
    try:
        descriptor = _made(temporary)
    except FileExistsError:
        os.unlink(temporary)  # noqa: PTH108 - as below: a page is written in a tenth of a millisecond
        descriptor = _made(temporary)
    try:
        try:
            left = memoryview(content.encode() if isinstance(content, str) else content)
            while left:
                left = left[os.write(descriptor, left) :]
            if modified is not None:
                os.utime(descriptor, (modified, modified))
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
        raise
    if durable:
        sync(path.parent)


def _made(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def write_cached(path: Path, content: bytes) -> None:
    """Replace ``path`` as :func:`write_private`, not durably, by something of an upstream; its directory is made.

    Raises OSError, also when the disk is nearly full.
    """
    try:
        room = has_room(path.parent, RESERVE)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        room = has_room(path.parent, RESERVE)
    if not room:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    write_private(path, content, durable=False)


def read_dated(path: Path) -> tuple[bytes, float]:
    """A file that is never written to, only replaced; and its modification time (seconds since the epoch).

    Raises OSError. With half of the system calls of :meth:`Path.read_bytes`: each gives up the interpreter's lock.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        content = os.read(descriptor, status.st_size)
        while len(content) < status.st_size and (more := os.read(descriptor, status.st_size - len(content))):
            content += more
    finally:
        os.close(descriptor)
    return content, status.st_mtime


def temporary_of(path: Path) -> Path:
    """The hidden file beside ``path`` that is written before it takes the place of ``path``."""
    return path.with_name(f".{path.name}.new")


def remove(path: Path) -> None:
    """Remove a file that may be absent, durably: it must not return after a power loss."""
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
    """The text of a small file, stripped; None when the file is absent or empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None


def ensure_keys(private: Private) -> None:
    """Generate the server's keys where they are missing."""
    if read_text(private.secret) is None:
        write_private(private.secret, secrets.token_urlsafe(48))
    if read_text(private.proof_key) is None:
        write_private(private.proof_key, secrets.token_hex(32))


def new_password(path: Path) -> str:
    """Generate a password, and store it at ``path`` before it is valid anywhere."""
    while (password := secrets.token_urlsafe(32)).startswith("-"):
        pass  # other programs would read it as an option: devpi login root --password ...
    write_private(path, password + "\n")
    return password


def has_room(directory: Path, reserve: int) -> bool:
    """Whether more than ``reserve`` bytes of the disk are free; on a small disk a twentieth of it is enough."""
    usage = os.statvfs(directory)
    return usage.f_bavail * usage.f_frsize > min(reserve, usage.f_blocks * usage.f_frsize // 20)


def free_bytes(directory: Path) -> int:
    """Bytes of the disk that this user may still write."""
    usage = os.statvfs(directory)
    return usage.f_bavail * usage.f_frsize
