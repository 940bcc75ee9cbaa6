"""The core metadata of a wheel, read from the wheel: of a remote one by ranges, without the rest of it.

A wheel is a zip file. Its directory is at its end, and ``.dist-info`` is most often right before that, so that one
range of 16 KiB is enough for most wheels (uv begins with the same). All else is the standard library's ``zipfile`` on
a file object that asks for the ranges that are missing.

The rules are those of pip and uv: one ``.dist-info`` directory at the top, named after the project, and metadata with
the name and version of the wheel (https://packaging.python.org/en/latest/specifications/binary-distribution-format/).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Callable
from email.parser import HeaderParser
from typing import IO, BinaryIO, cast
from zipfile import ZipInfo

from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename
from packaging.version import Version

from deployer.server.devpi.archives import BROKEN, METADATA, MIB, Bounded
from deployer.server.mirrors.ranges import Piece, RangesUnsupported

TAIL = 16 << 10
"""Bytes of the first range: the end of the wheel."""
DIRECTORY = 4 * MIB
"""Bytes of a wheel's list of members."""
_LOCAL_HEADER = 30
"""Bytes of what stands before a member's name and content."""
_LOCAL_EXTRA = 64
"""Bytes that a member's own header may have more than its line in the directory says; more costs one more request."""
_COMMENT = (64 << 10) + 22
"""Bytes at the end that zipfile reads where the zip file has a comment."""
MOST = DIRECTORY + METADATA + _COMMENT + TAIL + (64 << 10)
"""Bytes that are asked for in all."""
_FIELDS = 256 << 10
"""Characters in which name and version are looked for: the email parser needs 40 times the memory of what it reads."""
_EMPTY_LINE = re.compile(r"\n\r?\n")
_REASON = 200
"""Characters of a reason, which may quote the file."""
_SUFFIX = ".dist-info"
_INVALID = (*BROKEN, EOFError, OverflowError, struct.error, zlib.error)
"""What zipfile raises for an invalid or damaged archive."""


class NoMetadata(Exception):
    """A file has no valid core metadata, or is not read because it is hostile. The reason is a short line of ASCII."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason[:_REASON])


Read = Callable[[str, int], Piece]
"""Ask an upstream. Arguments: the value of ``Range``, and the most bytes that may come. It raises RangesUnsupported."""


def metadata_by_ranges(read: Read, filename: str) -> bytes:
    """METADATA of the remote wheel ``filename``. Raises NoMetadata, RangesUnsupported and what ``read`` raises."""
    project = _project(filename)
    try:
        remote = _Remote(read)
        content = _metadata(cast("IO[bytes]", remote), project, prefetch=remote.fetch)
    except _ReadFailed as failed:
        raise failed.error from None
    check(content, filename)
    return content


def metadata_of(file: BinaryIO, filename: str) -> bytes:
    """METADATA of the wheel ``filename`` that is here. Raises NoMetadata."""
    content = _metadata(file, _project(filename), prefetch=lambda start, stop: None)
    check(content, filename)
    return content


def check(content: bytes, filename: str) -> None:
    """Check that ``content`` is the core metadata of the wheel or sdist ``filename``. Raises NoMetadata."""
    if len(content) > METADATA:
        raise NoMetadata(f"it is larger than {METADATA} bytes")
    name, version = _named(filename)
    try:
        text = content.decode()[:_FIELDS]
    except UnicodeDecodeError:
        raise NoMetadata("it is not UTF-8") from None
    end = _EMPTY_LINE.search(text)  # the description follows, and the parser would split it into lines
    fields = HeaderParser().parsestr(text[: end.end()] if end else text)
    found = {field: fields.get_all(field, []) for field in ("Metadata-Version", "Name", "Version")}
    for field, values in found.items():
        if len(values) != 1:
            raise NoMetadata(f"it has {len(values)} fields {field}")
    if canonicalize_name(found["Name"][0].strip()) != name:
        raise NoMetadata(f"it is of the project {found['Name'][0]!a}")
    try:
        stated = Version(found["Version"][0])
    except ValueError:  # InvalidVersion, or a number of too many digits
        raise NoMetadata(f"it has the invalid version {found['Version'][0]!a}") from None
    # A file may be named after a local version that was added after the build; uv accepts that, too.
    if stated not in (version, Version(version.public)):
        raise NoMetadata(f"it is of version {stated}")


def _named(filename: str) -> tuple[str, Version]:
    """Project in its normal form, and version, of a distribution's file name."""
    try:
        if filename.endswith(".whl"):
            return parse_wheel_filename(filename)[:2]
        return parse_sdist_filename(filename)
    except ValueError:
        raise NoMetadata(f"invalid file name {filename!a}") from None


def _project(wheel: str) -> str:
    if not wheel.endswith(".whl"):
        raise NoMetadata(f"invalid file name {wheel!a}")
    return _named(wheel)[0]


def _metadata(file: IO[bytes], project: str, *, prefetch: Callable[[int, int], None]) -> bytes:
    try:
        with _Wheel(file) as wheel:
            member = wheel.metadata(project)
            name = len(member.orig_filename.encode())
            start = member.header_offset
            prefetch(start, start + _LOCAL_HEADER + name + len(member.extra) + _LOCAL_EXTRA + member.compress_size)
            content = wheel.read(member)
    except _INVALID as error:
        raise NoMetadata(f"invalid wheel: {ascii(str(error) or type(error).__name__)[1:-1]}") from None
    if len(content) != member.file_size:
        raise NoMetadata(f"{member.filename!a} has {len(content)} bytes instead of {member.file_size}")
    return content


class _Wheel(Bounded):
    directory = DIRECTORY
    member = METADATA

    def metadata(self, project: str) -> ZipInfo:
        """The member that is the metadata of ``project``. Raises NoMetadata."""
        tops = {member.orig_filename.partition("/")[0] for member in self.filelist if "/" in member.orig_filename}
        found = sorted(top for top in tops if top.endswith(_SUFFIX))
        if len(found) != 1:
            raise NoMetadata(f"it has {len(found)} {_SUFFIX} directories")
        if not canonicalize_name(found[0]).startswith(project):
            raise NoMetadata(f"{found[0]!a} is of another project")
        name = f"{found[0]}/METADATA"
        members = [member for member in self.filelist if member.orig_filename == name]
        if len(members) != 1:
            raise NoMetadata(f"it has {len(members)} members {name!a}")
        self._check(members[0])
        return members[0]

    def _check(self, member: ZipInfo) -> None:
        if member.flag_bits & 1:
            raise NoMetadata(f"{member.filename!a} is encrypted")
        if max(member.file_size, member.compress_size) > METADATA:
            raise NoMetadata(f"{member.filename!a} is larger than {METADATA} bytes")
        start = member.header_offset
        end = start + _LOCAL_HEADER + member.compress_size
        others = (other.header_offset for other in self.filelist if other is not member)
        if start < 0 or end > self.start_dir or any(start <= other < end for other in others):
            raise NoMetadata(f"{member.filename!a} overlaps something else")


class _Remote:
    """A file at an upstream, of which each byte is asked for once. Its tail is asked for first."""

    def __init__(self, read: Read) -> None:
        self._ask, self._asked = read, 0
        self._position = 0
        tail = self._tail()
        self._total = tail.total
        if (tail.start, len(tail.data)) != (max(tail.total - TAIL, 0), min(TAIL, tail.total)):
            raise RangesUnsupported("the upstream sent another range")
        self._pieces = [tail]

    def _tail(self) -> Piece:
        try:
            return self._get(f"bytes=-{TAIL}", TAIL)
        except _ReadFailed as failed:
            if not isinstance(failed.error, RangesUnsupported):
                raise
        # Azure's and some other storage has ranges, but none that are counted from the end.
        total = self._get("bytes=0-0", 1).total
        start = max(total - TAIL, 0)
        return self._get(f"bytes={start}-{total - 1}", total - start)

    def read(self, size: int = -1) -> bytes:
        start = self._position
        stop = self._total if size < 0 else min(start + size, self._total)
        if stop <= start:
            return b""
        self.fetch(start, stop)
        self._position = stop
        return b"".join(piece.data[max(start - piece.start, 0) : max(stop - piece.start, 0)] for piece in self._pieces)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        position = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._total}[whence] + offset
        if position < 0:
            raise OSError("a position before the file's begin")
        self._position = position
        return position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def fetch(self, start: int, stop: int) -> None:
        """Ask for what is missing of these bytes."""
        for first, end in self._missing(start, min(stop, self._total)):
            piece = self._get(f"bytes={first}-{end - 1}", end - first)
            if (piece.start, len(piece.data), piece.total) != (first, end - first, self._total):
                raise RangesUnsupported("the upstream sent another range")
            self._pieces = sorted([*self._pieces, piece], key=lambda known: known.start)

    def _missing(self, start: int, stop: int) -> list[tuple[int, int]]:
        missing = []
        for piece in self._pieces:
            if start < min(piece.start, stop):
                missing.append((start, min(piece.start, stop)))
            start = max(start, piece.start + len(piece.data))
        return missing if start >= stop else [*missing, (start, stop)]

    def _get(self, span: str, size: int) -> Piece:
        self._asked += size
        if self._asked > MOST:
            raise NoMetadata(f"more than {MOST} bytes are needed")
        try:
            return self._ask(span, size)
        except Exception as error:
            raise _ReadFailed(error) from error


class _ReadFailed(Exception):
    """An error of the upstream on its way through zipfile, which takes an OSError for a damaged file."""

    def __init__(self, error: Exception) -> None:
        self.error = error
