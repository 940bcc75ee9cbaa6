"""Files of mirrors that are not here yet: fetched from the address that the page names now, checked, and kept.

A file is kept by a commit of devpi, when all of it has come and is what its page promises: by its hash, or, without
one, by the first bytes that a file of its name has. Files that come at the same time share a commit. What an upstream
has compressed on the way is decoded, unless the file is right as it came.
"""

from __future__ import annotations

import contextlib
import hashlib
import mimetypes
import os
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

from deployer.server.cdn import NO_CACHE, OPEN_FILE
from deployer.server.devpi.installed import inside
from deployer.server.devpi.kept import KeptFile
from deployer.server.devpi.links import digest
from deployer.server.mirrors.indexes import Indexes, Mirror
from deployer.server.mirrors.page import File, size_of, storable
from deployer.server.mirrors.together import Together
from deployer.server.upstream.body import LARGEST_FILE, Body, InvalidBody
from deployer.server.upstream.client import Client

BLOCK = 64 * 1024
AT_ONCE = 32
"""Files that one commit keeps at most: an upload waits for it."""
MOST_WAITING, PATIENCE = 64, 30.0
"""Files that wait for their commit before no other one is fetched, each with a thread and open files; and the seconds
that one waits to be fetched."""
_GZIP = b"\x1f\x8b"
_STARTS = {
    (".whl", ".zip", ".egg"): (b"PK\x03\x04", b"PK\x05\x06"),
    (".tar.gz", ".tgz"): (_GZIP,),
    (".tar.bz2", ".tbz"): (b"BZh",),
    (".tar.xz", ".txz"): (b"\xfd7zXZ\x00",),
}
"""The first bytes of files by the end of their names."""
_LONGEST = 6
FETCHED_HEADER = "X-Accel-Buffering"
"""Of what was fetched from an upstream for this request, with the value ``no``: the access log of nginx says so."""
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class FileRefused(Exception):
    """The upstream sends no such file, or another one. ``status``: for the client."""

    def __init__(self, message: str, *, status: int = HTTPStatus.BAD_GATEWAY) -> None:
        super().__init__(message)
        self.status = status


def cache_control(path: str) -> str:
    """For the file at ``path`` below its index: one without a hash in its address may be replaced by its upstream."""
    return OPEN_FILE if path.startswith("+f/") else NO_CACHE


@dataclass(frozen=True)
class Found:
    """A file of a mirror's page. ``path``: below the mirror's index."""

    mirror: Mirror
    project: str
    file: File
    path: str

    @property
    def filename(self) -> str:
        return str(self.file["filename"])

    @property
    def headers(self) -> dict[str, str]:
        """The headers that every answer with the file has, as nginx sends them."""
        kind = mimetypes.guess_type(self.filename)[0] or "application/octet-stream"
        made = {"Content-Type": kind, "Accept-Ranges": "bytes", FETCHED_HEADER: "no"}
        return made | {"Cache-Control": cache_control(self.path)}


@dataclass
class FileResponse:
    """An answer in the form of :class:`Download`. ``spool``: the file, while it grows; None when only chunks come."""

    status_code: int
    headers: dict[str, str]
    app_iter: Iterator[bytes]
    spool: IO[bytes] | None = None
    close: Callable[[], None] = lambda: None  # for an answer that nobody reads


class RemoteFiles:
    """The files of upstreams. ``directory``: for temporary files, on the same file system as devpi's."""

    def __init__(self, xom: Any, client: Client, indexes: Indexes, directory: Path) -> None:
        self._xom, self._client, self._indexes, self._directory = xom, client, indexes, directory
        self._files = Path(xom.config.server_path) / "+files"
        self._commits = threading.Lock()  # SQLite sleeps, up to a tenth of a second, where writers meet
        self._keeping: Together[KeptFile] = Together(
            lambda files: inside().keep_files(xom, files),
            key=lambda file: file.place,
            turn=self._commits,
            most=AT_ONCE,
        )
        self.on_kept: Callable[[Found], None] = lambda found: None
        """Called when a file has been kept."""
        self.room_for: Callable[[int], contextlib.AbstractContextManager[None]] = lambda size: contextlib.nullcontext()
        """Entered with the size of a file before it comes, until it is kept; it may wait, and its clients with it."""

    def fetch(self, found: Found) -> FileResponse:
        """The file, kept while the answer's body is read. Raises FileRefused."""
        stored = self._stored(found)
        if stored.exists() and not self.is_due(found.mirror, found.path):  # kept a moment ago
            return FileResponse(HTTPStatus.OK, _headers_of(found, stored), _blocks(stored), stored.open("rb"))
        if not self._keeping.wait_for_room(MOST_WAITING, PATIENCE):
            raise FileRefused("files come faster than they are stored", status=HTTPStatus.SERVICE_UNAVAILABLE)
        stack = contextlib.ExitStack()
        try:
            validators = self._validators(found)
            response = self._ask(stack, found, validators)
            if response.status_code == HTTPStatus.NOT_MODIFIED and validators:
                os.utime(self._stored(found))
                stack.close()
                return FileResponse(response.status_code, {}, iter(()))
            if response.status_code != HTTPStatus.OK:
                raise _answered(response)
            return self._response(stack, found, response)
        except Client.Errors as error:
            stack.close()
            raise _broken(error) from None
        except BaseException:
            stack.close()
            raise

    def _stored(self, found: Found) -> Path:
        return self._files / found.mirror.name / found.path

    def is_due(self, mirror: Mirror, path: str) -> bool:
        """Whether a file that is here has to be looked for again: without a hash, the upstream may have replaced it."""
        if not path.startswith("+e/"):
            return False
        try:
            return time.time() - (self._files / mirror.name / path).stat().st_mtime >= mirror.expiry
        except OSError:
            return False

    def _validators(self, found: Found) -> dict[str, str]:
        path = f"{found.mirror.name}/{found.path}"
        if not found.path.startswith("+e/") or not self._stored(found).exists():
            return {}
        _, modified = inside().facts(self._xom, [path]).get(path, (None, None))
        since = _http_date(modified or "")
        return {"If-Modified-Since": since} if since else {}

    def _response(self, stack: contextlib.ExitStack, found: Found, response: Any) -> FileResponse:
        kept = contextlib.ExitStack()
        stack.callback(kept.close)
        kept.enter_context(self.room_for(size_of(found.file) or _length(response)))
        spool = kept.enter_context(_Spool(self._directory))
        modified = _http_date(response.headers.get("Last-Modified", "")) or formatdate(usegmt=True)
        headers = found.headers | {"Last-Modified": modified}
        pieces = response.iter_raw()
        if _is_encoded(response):
            # Which bytes are the file is known at the end only.
            spool.take(pieces)
            self._decoded(found, spool, response.headers["Content-Encoding"])
            pieces = iter(())
        else:
            spool.first(pieces)
            if digest(found.file) is None:
                _require_start(found.filename, spool.start)
        if spool.complete:
            headers["Content-Length"] = str(spool.size)
        elif expected := _length(response):
            headers["Content-Length"] = str(expected)
        everything = kept.pop_all()
        rest = self._rest(found, spool, pieces, headers, asked=stack, kept=everything)

        def close() -> None:
            stack.close()
            everything.close()

        return FileResponse(HTTPStatus.OK, headers, rest, spool.reader, close)

    def _rest(
        self,
        found: Found,
        spool: _Spool,
        pieces: Iterator[bytes],
        headers: dict[str, str],
        *,
        asked: contextlib.ExitStack,
        kept: contextlib.ExitStack,
    ) -> Iterator[bytes]:
        """The body, and what follows its end. ``asked``: the upstream's answer. ``kept``: the spool."""
        with kept:
            with asked:
                if spool.complete:
                    yield from _blocks(spool.path)
                else:
                    yield spool.start
                for piece in pieces:
                    spool.write(piece)
                    yield piece
            expected = headers.get("Content-Length")
            if expected is not None and spool.size != int(expected):
                raise FileRefused(f"{found.filename}: {spool.size} bytes came instead of {expected}")
            if not spool.is_right(found.file):
                raise FileRefused(f"{found.filename} has another hash than its page says")
            self._keep(found, spool, headers["Last-Modified"])

    def _keep(self, found: Found, spool: _Spool, last_modified: str) -> None:
        self._keeping.add(
            replace(
                _entry(found),
                content=spool.named,
                digests=spool.digests,
                size=spool.size,
                last_modified=last_modified,
            )
        )
        self.on_kept(found)

    def _decoded(self, found: Found, spool: _Spool, encoding: str) -> None:
        """Replace what came by what it stands for, unless it is right as it is."""
        if spool.is_right(found.file) if digest(found.file) is not None else _is_kind(found.filename, spool.start):
            return
        try:
            spool.decode(encoding)
        except (zlib.error, ValueError) as error:
            raise FileRefused(f"{found.filename} is not encoded as its header says: {error}") from None
        if digest(found.file) is None:
            _require_start(found.filename, spool.start)

    def receive(
        self, found: Found, pieces: Iterator[bytes], *, sha256: str, size: int, verified: Callable[[], None]
    ) -> None:
        """Keep a file that a client has sent. ``verified``: called when all of it is right, before it is kept.

        Raises FileRefused, LookupError when the mirror is gone, OSError.
        """
        with self.room_for(size), _Spool(self._directory) as spool:
            spool.take(pieces)
            if spool.size != size or spool.digests["sha256"] != sha256 or not spool.is_right(found.file):
                raise FileRefused(f"{found.filename} is not what its page says")
            if digest(found.file) is None:
                _require_start(found.filename, spool.start)
            verified()
            modified = _http_date(str(found.file.get("upload-time") or "")) or formatdate(usegmt=True)
            self._keep(found, spool, modified)

    def drop(self, index: str, files: Collection[tuple[str, str]]) -> None:
        """Remove files of a mirror by one commit: path below the index, and project."""
        with self._commits:
            inside().drop_files(self._xom, index, files)
            for path, _ in files:
                stored = self._files / index / path
                stored.unlink(missing_ok=True)  # devpi did not know of it
                with contextlib.suppress(OSError):  # other files are there
                    stored.parent.rmdir()
                    if path.startswith("+f/"):
                        stored.parent.parent.rmdir()

    def enter(self, found: Found) -> None:
        """Have devpi know of a file that is not here."""
        with contextlib.suppress(LookupError):
            inside().keep_files(self._xom, [_entry(found)])

    def part(self, found: Found, value: str) -> FileResponse:
        """The upstream's answer to a ``Range``, of which nothing is kept; where it has no ranges, the whole file as of
        :meth:`fetch`. Raises FileRefused."""
        stack = contextlib.ExitStack()
        try:
            response = self._ask(stack, found, {"Range": value})
            if response.status_code == HTTPStatus.OK:
                return self._response(stack, found, response)
            if response.status_code not in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
                raise _answered(response)
            if _is_encoded(response):  # a range of other bytes
                stack.close()
                return self.fetch(found)
            headers = found.headers
            headers |= {
                name: response.headers[name]
                for name in ("Content-Range", "Content-Length", "Last-Modified")
                if name in response.headers
            }
            pieces = _closing(stack, response.iter_raw(BLOCK))
            return FileResponse(response.status_code, headers, pieces, close=stack.close)
        except Client.Errors as error:
            stack.close()
            raise _broken(error) from None
        except BaseException:
            stack.close()
            raise

    def head(self, found: Found) -> dict[str, str]:
        """The headers of the file, asked for without a byte of it. Raises FileRefused."""
        size = size_of(found.file)
        headers = found.headers
        if size is not None:
            return headers | {"Content-Length": str(size)}
        with contextlib.ExitStack() as stack:
            response = self._ask(stack, found, {}, method="HEAD")
            if response.status_code != HTTPStatus.OK:
                raise _answered(response)
            passed = ("Last-Modified",) if _is_encoded(response) else ("Content-Length", "Last-Modified")
            return headers | {name: response.headers[name] for name in passed if name in response.headers}

    def small(self, mirror: Mirror, url: str, *, most: int) -> Any:
        """A small answer of the mirror's upstream, read to its end and decoded: (status, headers, body).

        Raises FileRefused.
        """
        with contextlib.ExitStack() as stack:
            response = self._asked(stack, mirror, url, {}, method="GET")
            try:
                with Body(response.headers.get("Content-Encoding", ""), most=most) as body:
                    for piece in response.iter_raw(BLOCK):
                        for _size in body.feed(piece):
                            pass
            except (InvalidBody, *Client.Errors) as error:
                raise _broken(error) from None
            if not body.is_whole:
                raise FileRefused("an encoded body that breaks off")
            return response.status_code, response.headers, bytes(body.decoded)

    def _ask(self, stack: contextlib.ExitStack, found: Found, headers: dict[str, str], method: str = "GET") -> Any:
        return self._asked(stack, found.mirror, found.file["url"], headers, method=method)

    def _asked(
        self, stack: contextlib.ExitStack, mirror: Mirror, url: str, headers: dict[str, str], *, method: str
    ) -> Any:
        for _ in range(3):
            authorization = self._indexes.authorization(mirror)
            sent = {"Accept-Encoding": "identity", **headers}
            sent |= {"Authorization": authorization} if authorization else {}
            response = self._client.stream(stack, method, url, allow_redirects=True, extra_headers=sent)
            if response.status_code == -1:
                raise FileRefused(str(response.reason_phrase))
            challenge = response.headers.get("WWW-Authenticate", "")
            if response.status_code not in _REFUSED or not self._indexes.try_others(mirror, challenge):
                break
        return response


def _entry(found: Found) -> KeptFile:
    """The entry and the link of a file, without its content."""
    return KeptFile(index=found.mirror.name, path=found.path, project=found.project, file=storable(found.file))


def _headers_of(found: Found, stored: Path) -> dict[str, str]:
    status = stored.stat()
    modified = formatdate(status.st_mtime, usegmt=True)
    return found.headers | {"Content-Length": str(status.st_size), "Last-Modified": modified}


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            yield block


def for_client(status: int) -> int:
    """The status that a client gets for an upstream's."""
    gone = status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
    return HTTPStatus.NOT_FOUND if gone else HTTPStatus.BAD_GATEWAY


def _answered(response: Any) -> FileRefused:
    status = response.status_code
    return FileRefused(f"the upstream answers with status {status}", status=for_client(status))


def _closing(stack: contextlib.ExitStack, pieces: Iterator[bytes]) -> Iterator[bytes]:
    with stack:
        try:
            yield from pieces
        except Client.Errors as error:
            raise _broken(error) from None


def _broken(error: Exception) -> FileRefused:
    return FileRefused(f"the upstream's answer breaks off: {error}")


def _is_encoded(response: Any) -> bool:
    return response.headers.get("Content-Encoding", "").strip().lower() not in ("", "identity")


def _length(response: Any) -> int:
    """The bytes that the answer says it has; 0 where it does not."""
    told = response.headers.get("Content-Length", "")
    return int(told) if told.isdecimal() else 0


def _http_date(text: str) -> str | None:
    """A date of HTTP or of ISO 8601, as HTTP has it; None for anything else, which devpi may not read."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            return formatdate(read(text).timestamp(), usegmt=True)
    return None


def _starts(filename: str) -> tuple[bytes, ...]:
    return next((starts for ends, starts in _STARTS.items() if filename.lower().endswith(ends)), ())


def _require_start(filename: str, start: bytes) -> None:
    """Raises FileRefused for another kind of file: a login page, an error that is sent with 200."""
    starts = _starts(filename)
    if starts and not start.startswith(starts):
        raise FileRefused(f"what the upstream sends for {filename} is no such file")


def _is_kind(filename: str, start: bytes) -> bool:
    """Whether this is the beginning of a file of that name, and not of a file that was compressed once more."""
    starts = _starts(filename)
    if _GZIP not in starts:
        return start.startswith(starts)
    try:
        tarfile.TarInfo.frombuf(zlib.decompressobj(31).decompress(start, tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    except (zlib.error, tarfile.HeaderError):
        return False
    return True


class _Spool:
    """A file that grows in ``directory`` under a name, so that devpi can link it; gone at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> _Spool:
        self._begin()
        return self

    def _begin(self) -> None:
        # The name is needed until devpi has linked it; the directory is emptied at each start.
        self._file = tempfile.NamedTemporaryFile(dir=self._directory, prefix="file-", buffering=0)  # noqa: SIM115
        self._hashes: dict[str, Any] = {"sha256": hashlib.sha256()}
        self.size = 0
        self.start = b""
        self.complete = False

    def __exit__(self, *raised: object) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._file.close()

    @property
    def reader(self) -> IO[bytes]:
        """The file, open for reading for as long as clients read it."""
        return open(self._file.name, "rb", buffering=0)  # noqa: PTH123 - the reader closes it

    @property
    def path(self) -> Path:
        return Path(self._file.name)

    @property
    def named(self) -> Any:
        return _Linked(self._file.name)

    def write(self, piece: bytes) -> None:
        for running in self._hashes.values():
            running.update(piece)
        self._file.write(piece)
        self.size += len(piece)

    def first(self, pieces: Iterator[bytes]) -> None:
        """Take the first pieces, enough to recognise the kind of file."""
        for piece in pieces:
            self.write(piece)
            self.start += piece
            if len(self.start) >= _LONGEST:
                return
        self.complete = True

    def take(self, pieces: Iterator[bytes]) -> None:
        """Take everything."""
        for piece in pieces:
            self.write(piece)
            if len(self.start) < BLOCK:
                self.start += piece
        self.complete = True

    def decode(self, encoding: str) -> None:
        """Replace the content by what it encodes. Raises ValueError and zlib.error."""
        windows = {"gzip": 31, "x-gzip": 31, "deflate": 47}
        kind = encoding.strip().lower()
        if kind not in windows:
            raise ValueError(f"unknown encoding {kind!r}")
        packed, unpack = self._file, zlib.decompressobj(windows[kind])
        packed.seek(0)
        self._begin()
        while piece := packed.read(BLOCK):
            while piece:
                plain = unpack.decompress(piece, 16 * BLOCK)
                piece = unpack.unconsumed_tail
                if self.size + len(plain) > LARGEST_FILE:
                    raise ValueError("too large")
                self.write(plain)
                if len(self.start) < BLOCK:
                    self.start += plain
        packed.close()
        if not unpack.eof:
            raise ValueError("it breaks off")
        self.complete = True

    def is_right(self, file: File) -> bool:
        """Whether the content has the hash of ``file``."""
        expected = digest(file)
        if expected is None:
            return True
        kind, value = expected
        return bool(self._digest(kind) == value)

    def _digest(self, kind: str) -> str:
        if kind not in self._hashes:
            with open(self._file.name, "rb") as stream:  # noqa: PTH123
                return hashlib.file_digest(stream, kind).hexdigest()
        return str(self._hashes[kind].hexdigest())

    @property
    def digests(self) -> dict[str, str]:
        return {kind: running.hexdigest() for kind, running in self._hashes.items()}


class _Linked:
    """A file as devpi takes it: by a link instead of a copy (its ``devpi_srcpath``)."""

    def __init__(self, path: str) -> None:
        self.devpi_srcpath = path
