"""The tests' own package index: small real distributions, every request counted, every fault on demand.

It speaks PEP 503 (HTML) and PEP 691 (JSON) on a free loopback port. ``python -m tests.upstream NAME==VERSION …``
serves wheels made on the fly until it is interrupted, and prints its address.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gzip
import hashlib
import io
import json
import re
import ssl
import tarfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "text/html; charset=utf-8"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the oldest time that a zip file knows; makes archives the same on every run


@dataclass(frozen=True, kw_only=True)
class Distribution:
    """A file to be served, and the project whose page lists it."""

    project: str  # in PEP 503's normal form
    version: str
    filename: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def metadata(self) -> bytes:
        """METADATA of a wheel; of another file nothing."""
        if not self.filename.endswith(".whl"):
            return b""
        with zipfile.ZipFile(io.BytesIO(self.content)) as archive:
            return archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA")))


def normalize(name: str) -> str:
    """PEP 503's normal form of a project's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def make_wheel(
    name: str,
    version: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    requires: Sequence[str] = (),
    description: str = "",
) -> Distribution:
    """A pure Python wheel that pip installs. ``files``: by path inside it; by default one module with its version."""
    stem = normalize(name).replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    contents: dict[str, str | bytes] = dict(files or {f"{stem}.py": f"version = {version!r}\n"})
    contents[f"{info}/METADATA"] = _metadata(name, version, requires) + (f"\n{description}" if description else "")
    contents[f"{info}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    records = [f"{path},sha256={_record_hash(_bytes(data))},{len(_bytes(data))}" for path, data in contents.items()]
    contents[f"{info}/RECORD"] = "\n".join([*records, f"{info}/RECORD,,"]) + "\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for path, data in contents.items():
            archive.writestr(zipfile.ZipInfo(path, _EPOCH), _bytes(data))
    return Distribution(
        project=normalize(name),
        version=version,
        filename=f"{stem}-{version}-py3-none-any.whl",
        content=buffer.getvalue(),
    )


def make_sdist(
    name: str,
    version: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    requires: Sequence[str] = (),
) -> Distribution:
    """A source distribution (PEP 625) without a build system: enough to be listed, downloaded and unpacked."""
    stem = normalize(name).replace("-", "_")
    contents: dict[str, str | bytes] = dict(files or {f"{stem}.py": f"version = {version!r}\n"})
    contents["PKG-INFO"] = _metadata(name, version, requires)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in contents.items():
            member = tarfile.TarInfo(f"{stem}-{version}/{path}")
            member.size = len(_bytes(data))
            archive.addfile(member, io.BytesIO(_bytes(data)))
    return Distribution(
        project=normalize(name),
        version=version,
        filename=f"{stem}-{version}.tar.gz",
        content=gzip.compress(buffer.getvalue(), mtime=0),
    )


def _metadata(name: str, version: str, requires: Sequence[str]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    return "\n".join([*lines, *(f"Requires-Dist: {requirement}" for requirement in requires)]) + "\n"


def _bytes(data: str | bytes) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@dataclass(kw_only=True)
class Faults:
    """What goes wrong, for requests whose path begins with ``path``. Change it at any time."""

    path: str = "/"
    latency: float = 0.0  # seconds before an answer
    bandwidth: int = 0  # bytes a second; 0 = as fast as it goes
    status: int = 0  # answer with this instead
    instead: tuple[int, str, bytes] | None = None  # or with exactly this: status, media type, body
    charset: str = ""  # what media types of pages say of one
    hang: bool = False  # take the request and never answer
    short_body: bool = False  # promise the whole body, send half of it, hang up
    wrong_hash: bool = False  # pages promise hashes that the files don't have
    auth: tuple[str, str] | None = None  # user and password that Basic must give, else 401


@dataclass(frozen=True, kw_only=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    target: str = ""  # path and query as they were sent
    body: bytes = b""

    @property
    def authorization(self) -> str | None:
        return self.headers.get("authorization")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is sent for one address. An ``ETag`` among ``headers`` is compared with ``If-None-Match``."""

    body: bytes = b""
    kind: str = "application/octet-stream"  # "" = no media type
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    compressed: bool = False  # with gzip, for clients that accept it


Script = Callable[[Request], Answer]
"""An answer that depends on the request."""


@dataclass
class Upstream:
    """A running index. Use it as a context manager; distributions may be added while it runs."""

    distributions: list[Distribution] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    keep_alive: bool = True
    elsewhere: dict[str, str] = field(default_factory=dict)
    """Where pages say that a file is, by its name, when it is not here."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Where requests for a path are sent on to."""
    ranges: bool = False
    """Whether a part of a file can be asked for."""
    core_metadata: bool = False
    """Whether pages promise the metadata of wheels (PEP 658), and the files with it are here."""
    answers: dict[str, Answer | Script] = field(default_factory=dict)
    """What is sent for a path with its query, whatever the distributions and faults are."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []
        self._sent: Counter[str] = Counter()
        self._server: _Server | None = None
        self.stopping = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    @property
    def simple_url(self) -> str:
        """What a mirror index or a client is given."""
        return f"{self.url}/simple/"

    def add(self, *distributions: Distribution) -> None:
        """Publish files; a file of the same name is replaced."""
        names = {distribution.filename for distribution in distributions}
        kept = [known for known in self.distributions if known.filename not in names]
        self.distributions = [*kept, *distributions]

    def start(self) -> None:
        """Listen; after :meth:`stop` again at the same port."""
        self.stopping.clear()
        self._server = _Server((self.host, self.port), self)
        if self.tls is not None:
            # The handshake is the handler's: one client that stalls must not keep the others out.
            self._server.socket = self.tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on (an upstream that is down), and let hanging requests go."""
        self.stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # What was asked

    @property
    def requests(self) -> tuple[Request, ...]:
        with self._lock:
            return tuple(self._requests)

    def record(self, request: Request) -> None:
        with self._lock:
            self._requests.append(request)

    def record_sent(self, path: str, size: int) -> None:
        with self._lock:
            self._sent[path] += size

    def sent(self, path: str) -> int:
        """Bytes of bodies that went out for exactly this path."""
        with self._lock:
            return self._sent[path]

    def forget(self) -> None:
        """Begin to count anew."""
        with self._lock:
            self._requests.clear()
            self._sent.clear()

    def count(self, path: str) -> int:
        """How often exactly this path was asked for."""
        return sum(request.path == path for request in self.requests)

    def pages(self, project: str | None = None) -> int:
        """How often the page of ``project``, or of any project, was asked for."""
        if project is not None:
            return self.count(f"/simple/{normalize(project)}/")
        return sum(bool(re.fullmatch(r"/simple/[^/]+/?", request.path)) for request in self.requests)

    def files(self, filename: str | None = None) -> int:
        """How often ``filename``, or any file, was asked for."""
        prefix = "/files/"
        paths = [request.path for request in self.requests if request.path.startswith(prefix)]
        return len(paths) if filename is None else paths.count(prefix + filename)

    @property
    def lists(self) -> int:
        """How often the list of all projects was asked for."""
        return self.count("/simple/") + self.count("/simple")

    # What is answered

    def page(self, project: str, *, as_json: bool) -> bytes | None:
        """The page of ``project``; None when there is no such project."""
        found = [known for known in self.distributions if known.project == project]
        if not found:
            return None
        links = [
            (known.filename, self.elsewhere.get(known.filename, f"/files/{known.filename}"), self._promise(known))
            for known in found
        ]
        if as_json:
            # Version 1.1 says the size of each file (PEP 700).
            files = [
                {
                    "filename": name,
                    "url": path,
                    "hashes": {"sha256": digest},
                    "size": len(known.content),
                    **self._promised_metadata(known),
                }
                for known, (name, path, digest) in zip(found, links, strict=True)
            ]
            versions = list(dict.fromkeys(known.version for known in found))
            return json.dumps(
                {"meta": {"api-version": "1.1"}, "name": project, "versions": versions, "files": files}
            ).encode()
        return _html(f'<a href="{path}#sha256={digest}">{name}</a>' for name, path, digest in links)

    def names(self, *, as_json: bool) -> bytes:
        """The list of all projects."""
        names = sorted({known.project for known in self.distributions})
        if as_json:
            projects = [{"name": name} for name in names]
            return json.dumps({"meta": {"api-version": "1.1"}, "projects": projects}).encode()
        return _html(f'<a href="/simple/{name}/">{name}</a>' for name in names)

    def file(self, filename: str) -> bytes | None:
        """The content of a file; None when there is none of that name."""
        for known in self.distributions:
            if known.filename == filename:
                return known.content
            if self.core_metadata and filename == f"{known.filename}.metadata":
                return known.metadata or None
        return None

    def _promised_metadata(self, distribution: Distribution) -> dict[str, object]:
        metadata = distribution.metadata if self.core_metadata else b""
        return {"core-metadata": {"sha256": hashlib.sha256(metadata).hexdigest()}} if metadata else {}

    def _promise(self, distribution: Distribution) -> str:
        return "0" * 64 if self.faults.wrong_hash else distribution.sha256


def _html(links: Iterable[str]) -> bytes:
    return ("<!DOCTYPE html><html><body>\n" + "\n".join(links) + "\n</body></html>\n").encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], upstream: Upstream) -> None:
        self.upstream = upstream
        super().__init__(address, _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what some tests are about, not a trace on the screen."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        upstream, faults = self.server.upstream, self.server.upstream.faults
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(method=self.command, path=path, headers=headers, target=self.path)
        upstream.record(request)
        answer = upstream.answers.get(self.path)
        if answer is not None:
            self._send_scripted(answer if isinstance(answer, Answer) else answer(request), request)
        elif not path.startswith(faults.path):
            self._answer(path, Faults())
        elif faults.hang:
            upstream.stopping.wait()
            self.close_connection = True
        else:
            time.sleep(faults.latency)
            self._answer(path, faults)

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def do_POST(self) -> None:
        """Take an upload, which needs no script."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = unquote(urlsplit(self.path).path)
        request = Request(method="POST", path=path, headers=headers, target=self.path, body=self._posted())
        self.server.upstream.record(request)
        self._send(200, b"taken\n", Faults(), {"Content-Type": "text/plain"})

    def _posted(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, path: str, faults: Faults) -> None:
        if faults.auth is not None and self.headers.get("Authorization") != _basic(*faults.auth):
            self._send(401, b"authentication required\n", faults, {"WWW-Authenticate": 'Basic realm="upstream"'})
        elif path in self.server.upstream.redirects:
            self._send(302, b"", faults, {"Location": self.server.upstream.redirects[path]})
        elif faults.status:
            self._send(faults.status, b"as told\n", faults)
        elif faults.instead is not None:
            status, kind, body = faults.instead
            self._send(status, body, faults, {"Content-Type": kind})
        else:
            as_json = JSON_TYPE in self.headers.get("Accept", "")
            page, kind = self._body(path, as_json=as_json)
            if page is None:
                self._send(404, b"not found\n", faults)
            else:
                self._send(200, page, faults, {"Content-Type": kind + faults.charset, "Vary": "Accept"})

    def _send_scripted(self, answer: Answer, request: Request) -> None:
        headers = {**({"Content-Type": answer.kind} if answer.kind else {}), **answer.headers}
        status, body = answer.status, answer.body
        if "ETag" in headers and request.headers.get("if-none-match") == headers["ETag"]:
            status, body = 304, b""
        elif answer.compressed:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("accept-encoding", ""):
                headers["Content-Encoding"] = "gzip"
                body = gzip.compress(body, mtime=0)
        self._send(status, body, Faults(), headers)

    def _body(self, path: str, *, as_json: bool) -> tuple[bytes | None, str]:
        upstream = self.server.upstream
        kind = JSON_TYPE if as_json else HTML_TYPE
        if path in ("/simple/", "/simple"):
            return upstream.names(as_json=as_json), kind
        if match := re.fullmatch(r"/simple/([^/]+)/?", path):
            return upstream.page(normalize(match[1]), as_json=as_json), kind
        if match := re.fullmatch(r"/files/([^/]+)", path):
            return upstream.file(match[1]), "application/octet-stream"
        return None, kind

    def _send(self, status: int, body: bytes, faults: Faults, headers: Mapping[str, str] | None = None) -> None:
        headers = dict(headers or {})
        if self.server.upstream.ranges and status == 200:
            status, body = self._ranged(body, headers)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if not self.server.upstream.keep_alive:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if faults.short_body:
            body = body[: len(body) // 2]
            self.close_connection = True
        step = max(1, faults.bandwidth // 20) if faults.bandwidth else max(1, len(body))
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            self.server.upstream.record_sent(unquote(urlsplit(self.path).path), len(body[start : start + step]))
            if faults.bandwidth:
                time.sleep(step / faults.bandwidth)

    def _ranged(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        headers["Accept-Ranges"] = "bytes"
        found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", self.headers.get("Range", ""))
        if found is None or self.command != "GET":
            return 200, body
        first, last = found.groups()
        start = int(first) if first else max(len(body) - int(last), 0)
        stop = min(int(last) + 1, len(body)) if first and last else len(body)
        if start >= stop:
            headers["Content-Range"] = f"bytes */{len(body)}"
            return 416, b""
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        return 206, body[start:stop]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests are recorded, not printed."""


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve wheels made on the fly from a free loopback port.")
    parser.add_argument("wheels", nargs="*", metavar="NAME==VERSION")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--bandwidth", type=int, default=0, help="bytes a second of each answer")
    options = parser.parse_args()
    pairs = [wheel.partition("==") for wheel in options.wheels]
    wheels = [make_wheel(name, version or "1.0") for name, _, version in pairs]
    faults = Faults(latency=options.latency, bandwidth=options.bandwidth)
    with Upstream(wheels, faults) as upstream:
        print(upstream.simple_url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
