"""A bundle on the disk: members with plain names in an uncompressed tar file, or in a directory.

A bundle is not trusted. Only names of the format are read, only regular files, and no byte more than there is; nothing
is unpacked, and nothing is compressed. An unfinished bundle has no checksums, so it can't be loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Protocol

from deployer.errors import ConflictError, Locked, UsageError, VerificationError
from deployer.files import replacing, sync

SUMS, SIGNATURE, PROFILE, IMAGE = "SHA256SUMS", "SHA256SUMS.sig", "profile.yaml", "image.tar"
LOCK = "plugins.lock"
"""The lock of the plugins in the profile."""
BLOCK = 1 << 20
MOST = 2_000_000
"""Members of the largest bundle that is read."""
LARGEST_SUMS = 256 << 20
_NAME = re.compile(
    r"profile\.yaml|plugins\.lock|image\.tar|bundle\.json|SHA256SUMS(?:\.sig)?|blobs/[0-9a-f]{64}|wheels/[A-Za-z0-9_][A-Za-z0-9_.+!-]{0,250}\.whl"
)
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_PART = ".part"
"""What is appended to the name of an unfinished tar file; inside an unfinished directory, the name of a mark."""


def blob(sha256: str) -> str:
    """The name of the member with this content."""
    return f"blobs/{sha256}"


@dataclass(frozen=True)
class Member:
    """``start``: where its content begins in the tar file."""

    name: str
    size: int
    start: int = 0


class _Source(Protocol):
    def members(self) -> Iterator[Member]: ...

    def open(self, member: Member) -> IO[bytes]:
        """Open the file with the member, at its beginning."""


class Bundle:
    """A bundle that is read. Raises VerificationError for what is none, or is damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists() and not (path.is_dir() or path.is_file()):  # a FIFO would be waited for
            raise UsageError(f"{path} is neither a file nor a directory", hint="name a bundle")
        self._source: _Source = _Directory(path) if path.is_dir() else _Tar(path)
        found: dict[str, Member] = {}
        try:
            for member in self._source.members():
                if member.name in found:
                    raise self._damaged(f"it has {member.name} twice")
                found[member.name] = member
                if len(found) > MOST:
                    raise self._damaged(f"it has more than {MOST} members")
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror or error}", hint="name a bundle") from None
        self.members: Mapping[str, Member] = found
        if SUMS not in found:
            raise VerificationError(
                f"{path} is unfinished: it has no {SUMS}", hint="create it again: the same deployer bundle create"
            )

    def _damaged(self, why: str) -> VerificationError:
        return VerificationError(f"{self.path} is no bundle of deployer: {why}", hint="get the bundle again")

    def pieces(self, name: str) -> Iterator[bytes]:
        """The content of a member. Raises VerificationError when it is absent or breaks off."""
        member = self.members.get(name)
        if member is None:
            raise self._damaged(f"it has no {name}")
        with self._source.open(member) as stream:
            left = member.size
            while left:
                piece = stream.read(min(BLOCK, left))
                if not piece:
                    raise self._damaged(f"{name} breaks off")
                left -= len(piece)
                yield piece

    def read(self, name: str, *, most: int) -> bytes:
        """A small member. Raises VerificationError."""
        member = self.members.get(name)
        if member is not None and member.size > most:
            raise self._damaged(f"{name} has {member.size} bytes")
        return b"".join(self.pieces(name))

    def sums(self) -> dict[str, str]:
        """The SHA-256 of each member, as the bundle says. Raises VerificationError unless it names all of them."""
        told: dict[str, str] = {}
        for line in self.read(SUMS, most=LARGEST_SUMS).decode("utf-8", "replace").splitlines():
            found = _LINE.fullmatch(line)
            if found is None or found[2] in told:
                raise self._damaged(f"invalid line in {SUMS}")
            told[found[2]] = found[1]
        differing = told.keys() ^ (self.members.keys() - {SUMS, SIGNATURE})
        if differing:
            raise self._damaged(f"{min(differing)} is a member or in {SUMS}, but not both")
        return told

    def check(self, name: str, sha256: str) -> None:
        """Raises VerificationError when the content of a member is another one."""
        digest = hashlib.sha256()
        for piece in self.pieces(name):
            digest.update(piece)
        if digest.hexdigest() != sha256:
            raise VerificationError(
                f"checksum mismatch of {name} in {self.path}: SHA-256 {digest.hexdigest()}, expected {sha256}",
                hint="get the bundle again",
            )

    def extract(self, name: str, target: Path) -> None:
        """Write a member to ``target``, a file of the caller's own choice."""
        with target.open("wb") as stream:
            for piece in self.pieces(name):
                stream.write(piece)


class _Tar:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[Member]:
        with self._path.open("rb") as stream:
            end = os.fstat(stream.fileno()).st_size
            try:
                for member in _headers(stream):
                    _require_name(self._path, member.name)
                    if member.start + member.size > end:
                        raise VerificationError(
                            f"{self._path} breaks off at {member.name}", hint="get the bundle again"
                        )
                    yield member
            except (tarfile.HeaderError, ValueError) as error:
                raise VerificationError(
                    f"{self._path} is no bundle of deployer: {error}", hint="name a file of deployer bundle create"
                ) from None

    def open(self, member: Member) -> IO[bytes]:
        stream = self._path.open("rb")
        stream.seek(member.start)
        return stream


def _headers(stream: IO[bytes]) -> Iterator[Member]:
    """The members of a tar file. Raises tarfile.HeaderError, ValueError.

    Links, sparse files and PAX headers are no part of the format. The long name of a wheel stands before its header.
    """
    position, long_name = 0, ""
    while block := _block(stream, position):
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
        start = position + tarfile.BLOCKSIZE
        position = start + _padded(info.size)
        if info.type == tarfile.GNUTYPE_LONGNAME and not long_name and 0 < info.size <= tarfile.BLOCKSIZE:
            long_name = stream.read(info.size).rstrip(b"\0").decode("ascii")
            continue
        name, long_name = long_name or info.name, ""
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or info.size < 0:
            raise ValueError(f"{name[:80]!r} is no regular file")
        yield Member(name, info.size, start)


def _block(stream: IO[bytes], position: int) -> bytes:
    """The header at ``position``; empty at the end."""
    stream.seek(position)
    block = stream.read(tarfile.BLOCKSIZE)
    return block if block.strip(b"\0") else b""


class _Directory:
    def __init__(self, path: Path) -> None:
        self._path = path

    def members(self) -> Iterator[Member]:
        if (self._path / _PART).exists():
            raise VerificationError(
                f"{self._path} is unfinished", hint="create it again: the same deployer bundle create"
            )
        for below in ("", "blobs", "wheels"):
            directory = self._path / below
            if below and (directory.is_symlink() or not directory.is_dir()):
                continue
            for entry in sorted(os.scandir(directory), key=lambda one: one.name):
                name = f"{below}/{entry.name}" if below else entry.name
                if not below and entry.name in ("blobs", "wheels"):
                    continue
                _require_name(self._path, name)
                status = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise VerificationError(
                        f"{self._path} is no bundle of deployer: {name} is no regular file", hint="get the bundle again"
                    )
                yield Member(name, status.st_size)

    def open(self, member: Member) -> IO[bytes]:
        descriptor = os.open(self._path / member.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        return os.fdopen(descriptor, "rb")


def _require_name(path: Path, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise VerificationError(f"{path} is no bundle of deployer: it has {name[:80]!r}", hint="get the bundle again")


# Writing


class Target(Protocol):
    """A bundle that is written. Members that an interrupted run has written whole stay and count."""

    sums: dict[str, str]

    def add(self, name: str, size: int, pieces: Iterable[bytes], *, sha256: str = "") -> None:
        """Write a member of ``size`` bytes, unless it is there. ``sha256``: what it must be; empty if not known.

        Raises VerificationError when other content comes; the bundle then lacks it.
        """

    def has(self, sha256: str) -> bool:
        """Whether this blob is there."""

    def finish(self, sign: Callable[[bytes], str] | None) -> None:
        """Write the checksums and their signature, and publish the bundle under its name."""


@contextmanager
def writing(path: Path, wanted: Callable[[str], bool]) -> Iterator[Target]:
    """Write the bundle ``path``: a directory if the name ends with a slash or is one, else a tar file.

    ``wanted``: whether a blob (its SHA-256) belongs to the bundle; other leftovers of an interrupted run are dropped.
    Raises ConflictError when there is something under that name that is not an unfinished bundle, Locked.
    """
    opened = _write_directory if path.is_dir() else _write_tar
    try:
        with opened(path, wanted) as target:
            yield target
    except OSError as error:
        raise ConflictError(
            f"{path} can't be written: {error.strerror or error}", hint="choose another place"
        ) from None


def refuse_existing(path: Path, *, directory: bool) -> None:
    """Raises ConflictError for what a new bundle would overwrite; an unfinished bundle is none."""
    if directory and path.is_dir():
        if any(path.iterdir()) and not (path / _PART).exists():
            raise ConflictError(f"{path} is not empty", hint="choose another directory")
    elif path.exists() or path.is_symlink():
        raise ConflictError(f"{path} exists", hint="choose another name, or remove it")
    elif not path.parent.is_dir():
        raise ConflictError(f"there is no directory {path.parent}", hint=f"mkdir -p {path.parent}")


def is_unfinished(directory: Path) -> bool:
    """Whether an interrupted run has left an unfinished bundle in ``directory``."""
    return (directory / _PART).is_file()


def reopen(directory: Path) -> None:
    """Make an unfinished bundle of the one in ``directory``: the next run that writes there keeps its wanted blobs."""
    (directory / _PART).touch(mode=0o600)


def _sums_text(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()


@cache
def _hashing() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "sha256")


def _checked(name: str, size: int, pieces: Iterable[bytes], sha256: str, write: Callable[[bytes], object]) -> str:
    """Write the pieces and return their SHA-256. Raises VerificationError when they are others than expected.

    The checksum of a piece is made in a thread while the piece is written and the next one is read.
    """
    digest, came = hashlib.sha256(), 0
    hashed: Future[None] | None = None
    for piece in pieces:
        came += len(piece)
        if came > size:
            break
        if hashed is not None:
            hashed.result()
        hashed = _hashing().submit(digest.update, piece)
        write(piece)
    if hashed is not None:
        hashed.result()
    found = digest.hexdigest()
    if came != size or (sha256 and found != sha256):
        raise VerificationError(
            f"{name} is not what the server lists: {came} bytes of {size}, SHA-256 {found}", hint="deployer doctor"
        )
    return found


class _TarTarget:
    def __init__(self, stream: IO[bytes], path: Path, wanted: Callable[[str], bool]) -> None:
        self._stream, self._path = stream, path
        self.sums: dict[str, str] = {}
        self._resume(wanted)

    def _resume(self, wanted: Callable[[str], bool]) -> None:
        """Keep the blobs that stand whole at the beginning, and cut off the rest."""
        end, length = 0, os.fstat(self._stream.fileno()).st_size
        with suppress(tarfile.HeaderError, ValueError):
            for member in _headers(self._stream):
                kind, _, sha256 = member.name.partition("/")
                after = member.start + _padded(member.size)
                if kind != "blobs" or not wanted(sha256) or member.name in self.sums or after > length:
                    break
                if _digest_at(self._stream, member) != sha256:
                    break
                self.sums[member.name] = sha256
                end = after
        self._stream.truncate(end)
        self._stream.seek(end)

    def has(self, sha256: str) -> bool:
        return blob(sha256) in self.sums

    def add(self, name: str, size: int, pieces: Iterable[bytes], *, sha256: str = "") -> None:
        if name in self.sums:
            return
        start = self._stream.tell()
        try:
            self._stream.write(_header(name, size))
            found = _checked(name, size, pieces, sha256, self._stream.write)
            self._stream.write(bytes(_padded(size) - size))
        except BaseException:
            self._stream.seek(start)
            self._stream.truncate(start)
            raise
        self.sums[name] = found

    def finish(self, sign: Callable[[bytes], str] | None) -> None:
        text = _sums_text(self.sums)
        last = {SUMS: text} | ({SIGNATURE: sign(text).encode()} if sign else {})
        for name, content in last.items():
            self._stream.write(_header(name, len(content)) + content + bytes(_padded(len(content)) - len(content)))
        self._stream.write(bytes(2 * tarfile.BLOCKSIZE))
        self._stream.flush()
        os.fsync(self._stream.fileno())
        refuse_existing(self._path, directory=False)
        Path(self._stream.name).replace(self._path)
        sync(self._path.parent)


@contextmanager
def _write_tar(path: Path, wanted: Callable[[str], bool]) -> Iterator[Target]:
    with (
        open(path.with_name(path.name + _PART), "r+b", opener=_create) as stream,
        _locked(stream.fileno(), path),
    ):
        yield _TarTarget(stream, path, wanted)


def _create(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextmanager
def _locked(descriptor: int, path: Path) -> Iterator[None]:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Locked(f"another run writes {path}", hint="wait until it ends") from None
    yield


class _DirectoryTarget:
    def __init__(self, path: Path, wanted: Callable[[str], bool]) -> None:
        self._path = path
        self.sums: dict[str, str] = {}
        (path / "blobs").mkdir(exist_ok=True)
        (path / "wheels").mkdir(exist_ok=True)
        for below in ("", "blobs", "wheels"):
            for entry in list(os.scandir(path / below)):
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False) or name == _PART:
                    continue
                if below == "blobs" and wanted(entry.name) and self._digest(name) == entry.name:
                    self.sums[name] = entry.name
                else:
                    (path / name).unlink()

    def _digest(self, name: str) -> str:
        with (self._path / name).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def has(self, sha256: str) -> bool:
        return blob(sha256) in self.sums

    def add(self, name: str, size: int, pieces: Iterable[bytes], *, sha256: str = "") -> None:
        if name not in self.sums:
            with (self._path / name).open("wb") as stream:
                found = _checked(name, size, pieces, sha256, stream.write)
                stream.flush()
                os.fsync(stream.fileno())
            self.sums[name] = found

    def finish(self, sign: Callable[[bytes], str] | None) -> None:
        text = _sums_text(self.sums)
        for name, content in (({SIGNATURE: sign(text).encode()} if sign else {}) | {SUMS: text}).items():
            with replacing(self._path / name) as stream:
                stream.write(content)
        sync(self._path / "blobs")
        sync(self._path / "wheels")
        (self._path / _PART).unlink()
        sync(self._path)


@contextmanager
def _write_directory(path: Path, wanted: Callable[[str], bool]) -> Iterator[Target]:
    with open(path / _PART, "r+b", opener=_create) as mark, _locked(mark.fileno(), path):
        yield _DirectoryTarget(path, wanted)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.GNU_FORMAT)


def _digest_at(stream: IO[bytes], member: Member) -> str:
    digest, size = hashlib.sha256(), member.size
    stream.seek(member.start)
    while size and (piece := stream.read(min(BLOCK, size))):
        digest.update(piece)
        size -= len(piece)
    return digest.hexdigest()
