"""The directory of backups: blobs by their SHA-256, and one manifest for each backup. Standard library only.

::

    blobs/ab/ab12…     content, named by its SHA-256; never changed, removed only by prune
    backups/NAME.json  a complete backup (deployer.protocol.Backup); it gets its name last
    new/               blobs of a backup that is not complete; emptied by the next create
    lock               held while something writes here

A blob leaves ``new`` when the disk has it: after a power loss, no blob has less content than its name says.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deployer.protocol import Backup, ExitCode, Refusal
from deployer.server.secret_files import write_private

CHUNK = 1 << 20
_PARTS = ("blobs", "backups", "new")

UNWRITTEN = 4 << 20
"""Bytes after which new blobs are written to the disk: a commit of the server waits for what is queued there."""
WORK, REST = 0.01, 0.05
"""Seconds of work after which a run rests as long as it has worked, and the longest rest: the server needs processor
and disk, too."""


class Damaged(Exception):
    """A blob, or a file that should become one, is absent or has another content than its name says."""


@dataclass
class Repository:
    """A directory of backups. ``added``: bytes of new blobs; ``linked``: files that became hard links.

    ``linking``: hard links are tried before copies.
    """

    directory: Path
    added: int = 0
    linked: int = 0
    linking: bool = True
    staged: set[str] = field(default_factory=set)
    """Digests of the blobs that are in ``new``."""
    _unwritten: int = 0
    _rested: float = field(default_factory=time.monotonic)

    @property
    def blobs(self) -> Path:
        return self.directory / "blobs"

    @property
    def backups(self) -> Path:
        return self.directory / "backups"

    @property
    def new(self) -> Path:
        return self.directory / "new"

    @contextlib.contextmanager
    def locked(self, *, shared: bool = False) -> Iterator[None]:
        """Lock the directory; the kernel's lock ends with its process. Raises Refusal."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._check_ours()
            for part in _PARTS:
                (self.directory / part).mkdir(exist_ok=True, mode=0o700)
            descriptor = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unusable(self.directory, error) from None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise Refusal(
                f"another run uses {self.directory}", hint="wait for its end, then try again", code=ExitCode.LOCKED
            ) from None
        except OSError as error:
            raise _unusable(self.directory, error) from None
        finally:
            os.close(descriptor)

    def _check_ours(self) -> None:
        names = {entry.name for entry in os.scandir(self.directory)}
        if names and not names & set(_PARTS) and names - {"lost+found", "incoming.json"}:
            raise Refusal(
                f"{self.directory} holds files that are not deployer's backups",
                hint="choose an empty directory for the backups",
                code=ExitCode.REFUSED,
            )

    # Blobs

    def blob(self, digest: str) -> Path:
        return self.new / digest if digest in self.staged else self.blobs / digest[:2] / digest

    def size(self, digests: Iterable[str]) -> int:
        """The bytes of these blobs."""
        new, blobs = f"{self.new}/", f"{self.blobs}/"
        paths = (f"{new}{one}" if one in self.staged else f"{blobs}{one[:2]}/{one}" for one in digests)
        return sum(os.stat(path).st_size for path in paths)  # noqa: PTH116 - several times as fast for thousands

    def known(self) -> set[str]:
        """The digests of all blobs."""
        return {entry.name for part in os.scandir(self.blobs) for entry in os.scandir(part.path)}

    def clear(self) -> None:
        """Remove what a killed run has left unfinished."""
        shutil.rmtree(self.new, ignore_errors=True)
        self.new.mkdir(exist_ok=True, mode=0o700)
        self.staged.clear()

    def keep_bytes(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        if not self.blob(digest).exists():
            temporary = self.new / "piece"
            self._unwritten += temporary.write_bytes(content)
            self._name(temporary, digest)
        return digest

    def keep_file(self, source: Path, hashes: Mapping[str, str], *, opened: int | None = None) -> str:
        """Take a file in, verified by ``hashes``; its SHA-256.

        ``opened``: a descriptor of the file, which may have been deleted since; it is closed. Raises FileNotFoundError,
        Damaged when its content is another one.
        """
        temporary = self.new / "file"
        temporary.unlink(missing_ok=True)
        found = self._take(open_file(source) if opened is None else opened, source, temporary, {"sha256", *hashes})
        for kind, digest in hashes.items():
            if found[kind] != digest:
                temporary.unlink()
                raise Damaged(f"{kind} mismatch")
        self._name(temporary, found["sha256"])
        return found["sha256"]

    def _take(self, descriptor: int, source: Path, target: Path, kinds: set[str]) -> dict[str, str]:
        """Link or copy an open file, and hash it."""
        hashes = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
        with os.fdopen(descriptor, "rb") as reader, contextlib.ExitStack() as stack:
            status = os.fstat(reader.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Damaged("not a regular file")
            writer = None if self._link(source, target, status) else stack.enter_context(target.open("wb"))
            written = 0
            while chunk := reader.read(CHUNK):
                for one in hashes.values():
                    one.update(chunk)
                if writer is not None:
                    written += writer.write(chunk)
                if writer is not None and written > UNWRITTEN:  # of a large file
                    writer.flush()
                    os.fdatasync(writer.fileno())
                    written = 0
                self.rest()
            self._unwritten += written
        return {kind: one.hexdigest() for kind, one in hashes.items()}

    def _link(self, source: Path, target: Path, status: os.stat_result) -> bool:
        """Whether ``target`` is now a hard link to the file with ``status``."""
        if not self.linking:
            return False
        try:
            os.link(source, target, follow_symlinks=False)
        except FileNotFoundError:  # deleted since it was opened
            return False
        except OSError:  # another file system, another mount of it, or a file of another user
            self.linking = False
            return False
        if os.path.samestat(status, target.stat(follow_symlinks=False)):
            self.linked += 1
            return True
        target.unlink()  # replaced since it was opened
        return False

    def _name(self, temporary: Path, digest: str) -> None:
        if self.blob(digest).exists():
            temporary.unlink()
            return
        self.added += temporary.stat().st_size
        temporary.rename(self.new / digest)
        self.staged.add(digest)
        if self._unwritten > UNWRITTEN:
            self._write()
        self.rest()

    def rest(self) -> None:
        """Rest, if this run has worked without a rest for some time."""
        worked = time.monotonic() - self._rested
        if worked > WORK:
            time.sleep(min(worked, REST))
            self._rested = time.monotonic()

    def _write(self) -> None:
        """Have the disk get what was written: often, so that no commit of the server waits for much of it."""
        sync_file_system(self.directory)
        self._unwritten = 0

    def read(self, digest: str) -> bytes:
        """A small blob, verified. Raises Damaged."""
        try:
            content = self.blob(digest).read_bytes()
        except FileNotFoundError:
            raise Damaged(f"blob {digest} is missing") from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise Damaged(f"blob {digest} has another content than its name says")
        return content

    # Backups

    def all(self) -> list[Backup]:
        """The complete backups, oldest first. Raises Refusal when one can't be read."""
        found = []
        for path in sorted(self.backups.glob("*.json")):
            backup = Backup.parse(path.read_bytes())
            if backup is None or backup.name != path.stem:
                raise Refusal(
                    f"{path} is damaged, or of a newer deployer",
                    hint=f"upgrade deployer, or move {path} away",
                    code=ExitCode.VERIFICATION,
                )
            found.append(backup)
        return found

    def get(self, name: str) -> Backup:
        """The backup ``name``; the last one for ``latest``. Raises Refusal."""
        found = self.all()
        chosen = found[-1:] if name == "latest" else [backup for backup in found if backup.name == name]
        if not chosen:
            what = "no backup" if name == "latest" else f"no backup {name}"
            raise Refusal(f"{self.directory} holds {what}", hint="deployer backup list", code=ExitCode.REFUSED)
        return chosen[0]

    def complete(self, backup: Backup) -> None:
        """Give the new blobs and then the manifest their names, each once the disk has what it needs."""
        self._write()
        for digest in sorted(self.staged):
            blob = self.blobs / digest[:2] / digest
            blob.parent.mkdir(exist_ok=True, mode=0o700)
            (self.new / digest).replace(blob)
            self.rest()
        self._write()
        write_private(self.backups / f"{backup.name}.json", json.dumps(backup.json, indent=1) + "\n")
        self.clear()

    def files(self, backup: Backup) -> Iterator[tuple[str, str]]:
        """Digest and path of each file of a backup. Raises Damaged."""
        for line in self.read(backup.files_sha256).decode("utf-8", "surrogateescape").splitlines():
            yield line[:64], line[66:]


def open_file(path: Path) -> int:
    """Open a file for reading: no link, and no device is waited for."""
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)


def sync_file_system(directory: Path) -> None:
    """Write what waits for the disk, of the file system of ``directory`` where the C library can tell it apart."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None).syncfs(descriptor):
            os.sync()
    except (OSError, AttributeError):
        os.sync()
    finally:
        os.close(descriptor)


def _unusable(directory: Path, error: OSError) -> Refusal:
    return Refusal(
        f"can't use {error.filename or directory}: {error.strerror}",
        hint=f"free some space, or make uid {os.getuid()} the owner of {directory}; earlier backups are unchanged",
        code=ExitCode.REFUSED,
    )
