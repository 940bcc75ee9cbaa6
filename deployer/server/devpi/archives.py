"""Zip files that others made: read within bounds, never extracted to the disk.

devpi-server reads the metadata of a wheel from the wheel, as a whole. devpi-web reads documentation (documentation.py).
A small archive could take all memory in both.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, ClassVar
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

MIB = 1 << 20
MEMBERS = 10_000
"""Members that an archive of documentation may have."""
MEMBER = 64 * MIB
"""Bytes of one member, extracted."""
TOTAL = 512 * MIB
"""Bytes of all members, extracted."""
RATIO = 100
"""Bytes of all members for each byte of the archive; the first :data:`FREE` bytes are not counted."""
FREE = 8 * MIB
METADATA = 4 * MIB
"""Bytes of a wheel's METADATA; the page of a project does not offer a larger one."""
CHUNK = 64 * 1024
BROKEN = (BadZipFile, NotImplementedError, ValueError, OSError, RuntimeError)
"""What ZipFile raises for an archive that is none, or that it can't read."""


class _Directory:
    """A file of which ZipFile reads the directory of members: in one piece, which must not be a large one."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file, self._limit = file, limit

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._limit + 1 if size < 0 else min(size, self._limit + 1))
        if len(data) > self._limit:
            raise BadZipFile(f"its list of members is larger than {self._limit} bytes")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Bounded(ZipFile):
    """A zip file of which no read takes more than a known amount of memory. Raises BadZipFile."""

    directory: ClassVar[int] = 32 * MIB
    member: ClassVar[int] = METADATA

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(_Directory(file, self.directory))

    def pieces(self, member: str | ZipInfo) -> Iterator[bytes]:
        """The content of a member, whatever its directory states: never more than the bound. Raises KeyError."""
        info = member if isinstance(member, ZipInfo) else self.getinfo(member)
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            # bz2 and lzma can't be read piece by piece.
            raise BadZipFile(f"{info.filename!a} is neither stored nor deflated")
        left = self.member
        with self.open(info) as content:
            while piece := content.read(CHUNK):
                left -= len(piece)
                if left < 0:
                    raise BadZipFile(f"{info.filename!a} is larger than {self.member} bytes")
                yield piece

    def read(self, name: str | ZipInfo, pwd: bytes | None = None) -> bytes:
        return b"".join(self.pieces(name))


class Documentation(Bounded):
    """An archive of documentation, with the methods that devpi-web calls. Raises BadZipFile for a hostile one."""

    directory = 2 * MIB
    member = MEMBER
    FileNotExist = KeyError

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        _check(self.infolist(), size=file.seek(0, 2))

    def forget(self) -> None:
        """Drop the list of members; those that the caller has can be read."""
        self.filelist.clear()
        self.NameToInfo.clear()

    def getfile(self, name: str) -> IO[bytes]:
        if name.endswith("/"):
            raise self.FileNotExist(name)
        return self.open(name)


def _check(members: Iterable[ZipInfo], *, size: int) -> None:
    found = list(members)
    if len(found) > MEMBERS:
        raise BadZipFile(f"it has more than {MEMBERS} members")
    total = sum(member.file_size for member in found)
    if total > TOTAL or total > FREE + RATIO * size:
        raise BadZipFile(f"its members have {total} bytes together")
    names: set[str] = set()
    parents: set[str] = set()
    for member in found:
        name = _name(member)
        if name in names:
            raise BadZipFile(f"{member.filename!a} is there twice")
        names.add(name)
        parents.update(map(str, PurePosixPath(name).parents))
    files = {_name(member) for member in found if not member.is_dir()}
    for name in sorted(files & parents):
        raise BadZipFile(f"{name!a} is a file and a directory")


def _name(member: ZipInfo) -> str:
    """The path of a checked member."""
    name = member.filename.removesuffix("/")
    parts = name.split("/")
    if not name or name != member.orig_filename.removesuffix("/") or "\\" in name or not name.isprintable():
        raise BadZipFile(f"invalid name {member.orig_filename!a}")
    if any(part in ("", ".", "..") for part in parts):
        raise BadZipFile(f"{member.filename!a} leads out of the archive")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadZipFile(f"{member.filename!a} is a link or a device")
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or member.flag_bits & 1:
        raise BadZipFile(f"{member.filename!a} is encrypted, or neither stored nor deflated")
    if member.file_size > MEMBER:
        raise BadZipFile(f"{member.filename!a} has {member.file_size} bytes")
    return name


def problem(file: IO[bytes]) -> str:
    """Why an upload of documentation is refused; empty when it is not."""
    try:
        with Documentation(file):
            return ""
    except BROKEN as error:
        return ascii(str(error))[1:-1]
    finally:
        file.seek(0)


def install() -> None:
    """Have devpi-server read wheels within bounds."""
    from devpi_server import filestore

    filestore.ZipFile = Bounded  # type: ignore[attr-defined,assignment]
