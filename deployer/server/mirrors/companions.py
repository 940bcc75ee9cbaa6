"""What belongs to a mirror's file, at its address with a suffix: metadata (PEP 658), provenance (PEP 740), signature.

Metadata of a wheel are the upstream's, or taken out of the wheel by ranges, or out of the whole wheel. They are kept in
``<serverdir>/.deployer/companions/USER/INDEX/+f/…``, from where nginx sends them.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from devpi_server.log import threadlog

from deployer.protocol import parsed
from deployer.server.devpi.links import CHECKED
from deployer.server.mirrors import wheel_metadata
from deployer.server.mirrors.files import FileRefused, FileResponse, Found, RemoteFiles, for_client
from deployer.server.mirrors.indexes import Mirror
from deployer.server.mirrors.ranges import Piece, RangesUnsupported
from deployer.server.mirrors.render import METADATA, PROMISES, PROVENANCE, SIGNATURE
from deployer.server.mirrors.source import Source
from deployer.server.mirrors.wheel_metadata import NoMetadata
from deployer.server.secret_files import write_cached

SUFFIXES = (METADATA, PROVENANCE, SIGNATURE)
TYPES = {
    METADATA: "application/octet-stream",
    PROVENANCE: "application/vnd.pypi.integrity.v1+json",
    SIGNATURE: "application/octet-stream",
}
LARGEST = 4 << 20
"""Bytes of the largest that is kept."""


class _Whole(Exception):
    """Asked for a range, the upstream sends the whole file: ``answer``."""

    def __init__(self, answer: FileResponse) -> None:
        super().__init__()
        self.answer = answer


class Companions:
    """All of them. ``directory``: where they are kept. ``files``: devpi's files, by the same paths."""

    def __init__(self, directory: Path, files: Path, source: Source, remote: RemoteFiles) -> None:
        self._directory, self._files, self._source, self._remote = directory, files, source, remote
        remote.on_kept, source.on_removed = self._renewed, self._removed
        self.on_put: Callable[[Found, str, int], None] = lambda found, suffix, size: None
        """Called with a file, the suffix and the bytes of what is kept beside it now."""

    def _renewed(self, found: Found) -> None:
        if not found.path.startswith("+f/"):  # without a hash, it may be another file than before
            for suffix in SUFFIXES:
                self._path(f"{found.mirror.name}/{found.path}", suffix).unlink(missing_ok=True)

    def _removed(self, mirror: str) -> None:
        shutil.rmtree(self._directory / mirror, ignore_errors=True)

    def kept(self, mirror: str, path: str, suffix: str) -> bytes | None:
        """What is here; None when it is not. ``path``: of the file, below its index."""
        with contextlib.suppress(OSError):
            return self._path(f"{mirror}/{path}", suffix).read_bytes()
        return None

    def is_due(self, mirror: Mirror, path: str, suffix: str) -> bool:
        """Whether it has to be asked for again, as :meth:`RemoteFiles.is_due` says of the file."""
        if path.startswith("+f/"):
            return False
        try:
            return time.time() - self._path(f"{mirror.name}/{path}", suffix).stat().st_mtime >= mirror.expiry
        except OSError:
            return True

    def get(self, found: Found, suffix: str, *, whole: Callable[[FileResponse | None], None]) -> bytes:
        """The companion of a file, asked for and kept. ``whole``: takes the whole
        file, of an answer if there is one already. Raises FileRefused."""
        kept = self.kept(found.mirror.name, found.path, suffix)
        if kept is not None and not self.is_due(found.mirror, found.path, suffix):  # since a moment ago
            return kept
        try:
            content = self._metadata(found, whole) if suffix == METADATA else self._other(found, suffix)
        except FileRefused as refused:
            if kept is None or refused.status == HTTPStatus.NOT_FOUND:
                raise
            return kept
        target = self._path(f"{found.mirror.name}/{found.path}", suffix)
        with contextlib.suppress(OSError):  # a full disk: the client gets it anyway
            write_cached(target, content)
            self.on_put(found, suffix, len(content))
        return content

    def put(self, found: Found, suffix: str, content: bytes) -> None:
        """Keep the companion of a file, as another server had it. Raises OSError."""
        target = self._path(f"{found.mirror.name}/{found.path}", suffix)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_cached(target, content)
        self.on_put(found, suffix, len(content))

    def remove(self, mirror: str, path: str) -> None:
        """Forget a companion, by its own path below the index. Raises OSError."""
        target = self._directory / mirror / path
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another companion of the same file
            target.parent.rmdir()
            if path.startswith("+f/"):
                target.parent.parent.rmdir()

    def beside(self, mirror: str, path: str) -> dict[str, str]:
        """The SHA-256 of what is kept of a file, by suffix."""
        kept = ((suffix, self.kept(mirror, path, suffix)) for suffix in SUFFIXES)
        return {suffix: hashlib.sha256(content).hexdigest() for suffix, content in kept if content is not None}

    def _path(self, file: str, suffix: str) -> Path:
        return self._directory / f"{file}{suffix}"

    def _other(self, found: Found, suffix: str) -> bytes:
        url = found.file.get("provenance") if suffix == PROVENANCE else _suffixed(found.file["url"], suffix)
        if not isinstance(url, str) or (suffix == SIGNATURE and not found.file.get("gpg-sig")):
            raise FileRefused(f"the upstream has no {suffix[1:]} of {found.filename}", status=HTTPStatus.NOT_FOUND)
        content = self._small(found, url)
        if suffix == PROVENANCE:
            with contextlib.suppress(ValueError):
                parsed(content)
                return content
            raise FileRefused(f"the provenance of {found.filename} is not JSON")
        return content

    def _small(self, found: Found, url: str) -> bytes:
        status, _, content = self._remote.small(found.mirror, url, most=LARGEST)
        if status != HTTPStatus.OK:
            raise FileRefused(f"the upstream answers with status {status}", status=for_client(status))
        return bytes(content)

    # Metadata

    def _metadata(self, found: Found, whole: Callable[[FileResponse | None], None]) -> bytes:
        if not found.filename.endswith(".whl"):
            raise FileRefused(f"{found.filename} is no wheel", status=HTTPStatus.NOT_FOUND)
        promise = next((found.file[key] for key in PROMISES if found.file.get(key)), None)
        if promise:
            try:
                return self._promised(found, promise)
            except (FileRefused, NoMetadata) as error:
                threadlog.warn("no metadata of %s from the upstream: %s", found.filename, error)
        try:
            return self._extracted(found, whole)
        except NoMetadata as error:
            threadlog.warn("%s has no metadata: %s", found.filename, error)
            self._source.lacks(found.mirror, found.project, found.path)
            raise FileRefused(f"{found.filename} has no metadata", status=HTTPStatus.NOT_FOUND) from None

    def _promised(self, found: Found, promise: Any) -> bytes:
        """What the upstream has beside the wheel. Raises FileRefused, NoMetadata."""
        content = self._small(found, _suffixed(found.file["url"], METADATA))
        for kind, value in promise.items() if isinstance(promise, dict) else ():
            if kind in CHECKED and hashlib.new(kind, content, usedforsecurity=False).hexdigest() != value:
                raise NoMetadata("it has another hash than the page says")
        wheel_metadata.check(content, found.filename)
        return content

    def _extracted(self, found: Found, whole: Callable[[FileResponse | None], None]) -> bytes:
        stored = self._files / found.mirror.name / found.path
        if not stored.exists():
            try:
                return wheel_metadata.metadata_by_ranges(
                    lambda value, most: self._range(found, value, most), found.filename
                )
            except _Whole as answered:
                whole(answered.answer)
            except RangesUnsupported:
                whole(None)
        try:
            with stored.open("rb") as wheel:
                return wheel_metadata.metadata_of(wheel, found.filename)
        except OSError as error:
            raise FileRefused(f"{found.filename} can't be read: {error.strerror}") from None

    def _range(self, found: Found, value: str, most: int) -> Piece:
        """One range of the wheel, of at most so many bytes. Raises RangesUnsupported and FileRefused."""
        answer = self._remote.part(found, value)
        if answer.status_code == HTTPStatus.OK:
            raise _Whole(answer)
        with contextlib.closing(answer):
            return Piece.of(
                answer.status_code, answer.headers.get("Content-Range", ""), _at_most(answer.app_iter, most)
            )


def _at_most(pieces: Iterable[bytes], most: int) -> bytes:
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > most:
            raise RangesUnsupported(f"more than {most} bytes came")
    return bytes(content)


def _suffixed(url: str, suffix: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path + suffix))
