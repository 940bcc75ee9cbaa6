"""The tunnel: a proxy on loopback that answers for the hosts of upstreams, and passes everything else through.

A program of its own, which reads a :class:`Plan` from its standard input, prints its port and ends with the process
that it is for. It imports the standard library only, and of that what is quick to import: threads instead of asyncio.
"""

from __future__ import annotations

import binascii
import contextlib
import json
import os
import select
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from deployer.clients.transparent.routes import Host, Mirror, Target, host_of, is_exempt, spelled, targets, view_of

USER = "deployer"
"""The user of the tunnel; the password is :attr:`Plan.token`."""
MIRRORED = "/+deployer/mirrored?index="
"""Where the server says which hosts it answers for (``deployer.protocol``)."""
RECENT = 2.0
"""Seconds for which that answer holds, and that it may take."""
CONNECT_SECONDS = 30.0
LARGEST_HEAD = 64 << 10
CHUNK = 32 << 10
BACKLOG = 511
_OWN_HEADERS = frozenset(
    {"authorization", "cookie", "host", "connection", "proxy-connection", "keep-alive", "x-outside-url"}
)
"""Headers of a request that are for the upstream, or for one connection."""
_OF_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection"})


class Plan(NamedTuple):
    """What a tunnel does. It has passwords: it is handed over through a pipe, and not shown.

    ``server``: address of the index's server, without a slash at the end; ``server_ca``: CA bundle for it. ``name``: of
    the index. ``chain`` and ``plain_chain``: the proxies that are to be used for https and http, empty for none.
    ``certificate`` and ``key``: files. ``roots``: CA bundle for upstreams. ``owner``: pid of the process that it is
    for. ``isolated``: whether clients are in another network, from which this host itself must not be reached through
    the tunnel.
    """

    server: str
    name: str
    mirrors: Sequence[Mirror]
    certificate: str
    key: str
    roots: str
    token: str
    owner: int
    server_ca: str = ""
    chain: str = ""
    plain_chain: str = ""
    no_proxy: str = ""
    isolated: bool = False

    @property
    def encoded(self) -> bytes:
        return json.dumps(self).encode()

    @classmethod
    def parse(cls, text: bytes) -> Plan:
        plan = cls(*json.loads(text))
        return plan._replace(mirrors=tuple(Mirror(*mirror) for mirror in plan.mirrors))


class Unreachable(Exception):
    """What is to be asked does not answer; the message is for the client."""


class Stream:
    """A connection that is read as HTTP."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._read = bytearray()

    def head(self) -> bytes:
        """The next request or answer, up to its empty line; nothing at the end. Raises ValueError for a long one."""
        start = 0
        while (end := self._read.find(b"\r\n\r\n", start)) < 0:
            start = max(0, len(self._read) - 3)
            if len(self._read) > LARGEST_HEAD:
                raise ValueError("headers are too long")
            if not self._more():
                return b""
        return self._take(end + 4)

    def line(self) -> bytes:
        while (end := self._read.find(b"\n")) < 0:
            if len(self._read) > LARGEST_HEAD or not self._more():
                raise Unreachable("the answer ended early")
        return self._take(end + 1)

    def _more(self) -> bool:
        data = self.socket.recv(CHUNK)
        self._read += data
        return bool(data)

    def _take(self, size: int) -> bytes:
        data = bytes(self._read[:size])
        del self._read[:size]
        return data

    def rest(self) -> bytes:
        """What was read too far."""
        return self._take(len(self._read))

    def body(self, size: int) -> Iterator[bytes]:
        """The next ``size`` bytes. Raises Unreachable at an early end."""
        while size > 0:
            data = self._take(min(size, len(self._read))) or self.socket.recv(min(size, CHUNK))
            if not data:
                raise Unreachable("the answer ended early")
            size -= len(data)
            yield data

    def chunks(self) -> Iterator[bytes]:
        """A chunked body with its framing, to the end."""
        while True:
            line = self.line()
            yield line
            size = int(line.partition(b";")[0], 16)
            if size == 0:
                break
            yield from self.body(size + 2)
        while (line := self.line()) not in (b"\r\n", b"\n"):
            yield line
        yield line

    def until_closed(self) -> Iterator[bytes]:
        yield self.rest()
        while data := self.socket.recv(CHUNK):
            yield data


class Head(NamedTuple):
    """The first line of a request or an answer, in three words, and its headers as they came."""

    words: tuple[str, str, str]
    headers: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Raises ValueError."""
        first, *lines = data.decode("latin-1").split("\r\n")[:-2]
        words = [*first.split(" ", 2), "", ""][:3]
        pairs = (line.partition(":") for line in lines)
        return cls((words[0], words[1], words[2]), tuple((name, value.strip()) for name, _, value in pairs))

    def get(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    def closes(self) -> bool:
        return "close" in self.get("connection").lower() or "HTTP/1.0" in self.words

    def has_body(self) -> bool:
        """Whether a request has one."""
        return self.get("content-length") not in ("", "0") or bool(self.get("transfer-encoding"))

    def encoded(self, *, without: frozenset[str], more: Mapping[str, str], words: Sequence[str] = ()) -> bytes:
        kept = [f"{name}: {value}" for name, value in self.headers if name.lower() not in without]
        lines = (" ".join(words or self.words), *kept, *(f"{name}: {value}" for name, value in more.items()))
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Tunnel:
    """Serves connections, each in a thread of its own."""

    def __init__(self, plan: Plan) -> None:
        """Raises OSError and ssl.SSLError when a file of the plan can't be used."""
        self._plan = plan
        self._names = {host for mirror in plan.mirrors for host in mirror.hosts}
        self._serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._serving.load_cert_chain(plan.certificate, plan.key)
        self._serving.set_alpn_protocols(["http/1.1"])
        self._serving.num_tickets = 0  # each connection is one of its own
        server = urlsplit(plan.server)
        self._server: Host = (server.hostname or "", server.port or (443 if server.scheme == "https" else 80))
        self._netloc, self._prefix = server.netloc.rpartition("@")[2], server.path.rstrip("/")
        self._asking: ssl.SSLContext | None = None
        if server.scheme == "https":
            self._asking = ssl.create_default_context(cafile=plan.server_ca)
        self._roots: ssl.SSLContext | None = None
        self._password = _basic(USER, plan.token)
        self._told: tuple[float, frozenset[Host]] = (float("-inf"), frozenset())

    def serve(self, listener: socket.socket) -> None:
        """Accept connections for ever."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # too many open files: those who are served go on
                time.sleep(0.05)
                continue
            threading.Thread(target=self._alone, args=(client,), daemon=True).start()

    def _alone(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError, Unreachable):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = Stream(client)
            data = stream.head()
            if data:
                self._first(stream, Head.parse(data))

    def _first(self, client: Stream, head: Head) -> None:
        method, target, _ = head.words
        from hmac import compare_digest  # not at the start: it loads a part of OpenSSL that nothing else needs

        if not compare_digest(head.get("proxy-authorization").encode(), self._password.encode()):
            _refuse(
                client.socket,
                "407 Proxy Authentication Required",
                "this proxy serves one command",
                "Proxy-Authenticate: Basic",
            )
        elif method == "CONNECT":
            self._connect(client, host_of(target))
        elif target.lower().startswith("http://"):
            self._plain(client, head)
        else:
            _refuse(client.socket, "400 Bad Request", "this is a proxy")

    def _connect(self, client: Stream, host: Host) -> None:
        if host in self._names:
            client.socket.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with self._serving.wrap_socket(client.socket, server_side=True) as tls:
                self._answer(Stream(tls), host)
            return
        if host in self._newly_known():
            _refuse(client.socket, "502 Bad Gateway", _NEW.format(spelled(host)))
            return
        try:
            other = self._dial(host)
        except Unreachable as error:
            _refuse(client.socket, "502 Bad Gateway", str(error))
            return
        with other:
            client.socket.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            other.sendall(client.rest())
            _carry_both(client.socket, other)

    # For the hosts of upstreams

    def _answer(self, client: Stream, host: Host) -> None:
        """Answer the requests of one connection."""
        with contextlib.ExitStack() as stack:
            index = _Index(self._open_server, stack)
            while data := client.head():
                head = Head.parse(data)
                method, path, _ = head.words
                found = targets(self._plan.mirrors, host, path) if method in ("GET", "HEAD") else ()
                if not found or head.has_body() or not self._from_index(client, index, head, found):
                    self._from_upstream(client, head, host)
                    return
                if head.closes():
                    return

    def _from_index(self, client: Stream, index: _Index, head: Head, found: Sequence[Target]) -> bool:
        """Answer by the index; False when it has no such file."""
        for target in found:
            sent = head.encoded(
                without=_OWN_HEADERS,
                more={"Host": self._netloc},
                words=(head.words[0], self._prefix + target.path, "HTTP/1.1"),
            )
            try:
                answer = index.ask(sent)
            except (OSError, Unreachable) as error:
                _refuse(
                    client.socket, "502 Bad Gateway", f"the index's server {self._plan.server} does not answer: {error}"
                )
                raise Unreachable from None
            body = _body(index.stream, answer, head.words[0])
            if answer.words[1] == "404" and target.is_file:
                for _ in body:
                    pass
                continue
            closing = not _framed(answer, head.words[0])
            more = {"Connection": "close"} if closing else {}
            _send(client.socket, answer.encoded(without=_OF_CONNECTION, more=more), body)
            if closing:
                raise Unreachable
            if answer.closes():
                index.close()
            return True
        return False

    def _newly_known(self) -> frozenset[Host]:
        """The hosts of upstreams that the server knows now, and this tunnel does not: a page has named them since."""
        if time.monotonic() > self._told[0] + RECENT:
            found: frozenset[Host] = frozenset()
            from deployer.protocol import Mirrored, parsed  # it takes as long to import as all else together

            with contextlib.suppress(OSError, ValueError, Unreachable), contextlib.ExitStack() as stack:
                # Whoever asks for another host must not wait for a server that hangs.
                index = _Index(lambda: self._open_server(RECENT), stack)
                path = f"{self._prefix}{MIRRORED}{self._plan.name}"
                answer = index.ask(f"GET {path} HTTP/1.1\r\nHost: {self._netloc}\r\n\r\n".encode())
                body = b"".join(_body(index.stream, answer, "GET"))
                views = {mirror.view for mirror in self._plan.mirrors}
                mirrors = [one for one in Mirrored.parse(parsed(body)) or () if view_of(one.name) in views]
                found = frozenset(host_of(host) for one in mirrors for host in one.hosts)
            self._told = (time.monotonic(), found - self._names)
        return self._told[1]

    def _open_server(self, limit: float | None = None) -> socket.socket:
        """A connection to the index's server. ``limit``: seconds that each step may take, after it is connected."""
        connection = socket.create_connection(self._server, limit or CONNECT_SECONDS)
        connection.settimeout(limit)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._asking.wrap_socket(connection, server_hostname=self._server[0]) if self._asking else connection

    def _from_upstream(self, client: Stream, head: Head, host: Host) -> None:
        """Pass one request on to the upstream itself, and its answer back: the connection ends with it."""
        sent = head.encoded(without=_OF_CONNECTION, more={"Connection": "close"})
        try:
            if self._roots is None:
                self._roots = ssl.create_default_context(cafile=self._plan.roots)
            other = self._roots.wrap_socket(self._dial(host), server_hostname=host[0])
        except (OSError, Unreachable) as error:
            _refuse(client.socket, "502 Bad Gateway", f"{spelled(host)} does not answer: {error}")
            return
        with other:
            other.sendall(sent + client.rest())
            _carry(client.socket, other)

    # For all other hosts

    def _plain(self, client: Stream, head: Head) -> None:
        """Pass a request for plain http on; the connection ends with its answer."""
        method, target, version = head.words
        parts = urlsplit(target)
        host: Host = (parts.hostname or "", parts.port or 80)
        chain = "" if is_exempt(self._plan.no_proxy, *host) else self._plan.plain_chain
        more = {"Connection": "close", **_authorization(chain)}
        path = target if chain else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        without = _OF_CONNECTION | {"proxy-authorization"}
        try:
            other = self._open_for(host, chain)
        except (OSError, Unreachable) as error:
            _refuse(client.socket, "502 Bad Gateway", f"{host[0]} does not answer: {error}")
            return
        with other:
            other.sendall(head.encoded(without=without, more=more, words=(method, path, version)) + client.rest())
            _carry_both(client.socket, other)

    def _dial(self, host: Host) -> socket.socket:
        """A connection to ``host``, through the proxy that is to be used. Raises Unreachable."""
        chain = "" if is_exempt(self._plan.no_proxy, *host) else self._plan.chain
        try:
            other = self._open_for(host, chain)
            if not chain:
                return other
            where = f"{host[0]}:{host[1]}"
            headers = "".join(f"{name}: {value}\r\n" for name, value in _authorization(chain).items())
            other.sendall(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{headers}\r\n".encode("latin-1"))
            # Nothing follows the answer before we have sent something.
            data = Stream(other).head()
        except (OSError, ValueError) as error:
            raise Unreachable(f"{spelled(host)}: {error}") from None
        status = Head.parse(data).words if data else ("", "", "no answer")
        if not status[1].startswith("2"):
            other.close()
            raise Unreachable(f"the proxy refused {where}: {' '.join(status[1:]).strip()}")
        return other

    def _open_for(self, host: Host, chain: str) -> socket.socket:
        """A connection to the proxy ``chain``, or without one to ``host``. Raises OSError, Unreachable."""
        there = [host]
        if self._plan.isolated and host not in self._names:
            there = _elsewhere(host, known=not chain)
        if chain:
            return _open(proxy_host(chain))
        for one in there[:-1]:
            with contextlib.suppress(OSError):
                return _open(one)
        return _open(there[-1])


_NEW = "a page of the index names files at {}, which became known after the start of this command: run it again"


class _Index:
    """A connection to the index's server, opened when it is needed and again when the server has closed it."""

    def __init__(self, opener: Callable[[], socket.socket], stack: contextlib.ExitStack) -> None:
        self._open = opener
        self._stream: Stream | None = None
        stack.callback(self.close)

    @property
    def stream(self) -> Stream:
        if self._stream is None:
            self._stream = Stream(self._open())
        return self._stream

    def close(self) -> None:
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None

    def ask(self, request: bytes) -> Head:
        """The head of the answer. Raises OSError, Unreachable."""
        for again in (self._stream is not None, False):
            try:
                self.stream.socket.sendall(request)
                if data := self.stream.head():
                    return Head.parse(data)
                error: Exception = Unreachable("it closed the connection")
            except OSError as failed:
                error = failed
            self.close()
            if not again:
                break
        raise error


def _framed(answer: Head, method: str) -> bool:
    """Whether an answer has a length or chunks, so that the connection can be kept open after it."""
    return _empty(answer, method) or bool(answer.get("content-length")) or _is_chunked(answer)


def _empty(answer: Head, method: str) -> bool:
    return method == "HEAD" or answer.words[1] in ("204", "304")


def _is_chunked(answer: Head) -> bool:
    return "chunked" in answer.get("transfer-encoding").lower()


def _body(stream: Stream, answer: Head, method: str) -> Iterator[bytes]:
    if _empty(answer, method):
        return iter(())
    if _is_chunked(answer):
        return stream.chunks()
    length = answer.get("content-length")
    return stream.body(int(length)) if length else stream.until_closed()


def _send(connection: socket.socket, head: bytes, body: Iterator[bytes]) -> None:
    """Send an answer, its head together with the beginning of its body."""
    connection.sendall(head + next(body, b""))
    for data in body:
        connection.sendall(data)


def _refuse(connection: socket.socket, status: str, text: str, header: str = "") -> None:
    body = f"deployer: {text}\n".encode()
    lines = [f"HTTP/1.1 {status}", "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
    lines += ["Connection: close", *([header] if header else [])]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + body)


def _elsewhere(host: Host, *, known: bool) -> list[Host]:
    """The addresses of ``host``, so that it is not resolved again. Raises Unreachable if one is this host's own.

    ``known``: whether a name must be known here; a proxy may know others.
    """
    try:
        found = socket.getaddrinfo(host[0].strip("[]"), host[1], type=socket.SOCK_STREAM)
    except OSError:
        if known:
            raise
        return []
    for family, kind, protocol, _, address in found:
        # An address can be bound to on the host that has it, and nowhere else.
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as one:
            one.bind((address[0], 0, *address[2:]))
            raise Unreachable("a build in a network of its own does not reach this host through the tunnel")
    return [(str(address[0]), host[1]) for *_, address in found]


def _open(host: Host) -> socket.socket:
    connection = socket.create_connection((host[0].strip("[]"), host[1]), CONNECT_SECONDS)
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def proxy_host(url: str) -> Host:
    """The host of a proxy's address. Raises ValueError."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or 80


def _authorization(proxy: str) -> dict[str, str]:
    """The header for the credentials in a proxy's address."""
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    return {"Proxy-Authorization": _basic(unquote(parts.username), unquote(parts.password or ""))}


def _basic(user: str, password: str) -> str:
    return "Basic " + binascii.b2a_base64(f"{user}:{password}".encode(), newline=False).decode()


def _carry_both(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways between plain connections, until both have ended."""

    def forth() -> None:
        _copy(one, other)

    thread = threading.Thread(target=forth, daemon=True)
    thread.start()
    _copy(other, one)
    thread.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _carry(client: ssl.SSLSocket | socket.socket, other: ssl.SSLSocket) -> None:
    """Carry bytes both ways between TLS connections until ``other`` ends: one thread, for before Python 3.13 two must
    not use one connection."""
    open_ends: list[Any] = [client, other]
    while True:
        ready = [end for end in open_ends if end.pending()] or select.select(open_ends, [], [])[0]
        for end in ready:
            data = _received(end)
            if data is None:
                continue
            if data:
                (other if end is client else client).sendall(data)
            elif end is other:
                return
            else:
                open_ends.remove(end)


def _received(end: Any) -> bytes | None:
    """What has come; None where that was no data: a part of a record, or a ticket that a server sends unasked."""
    end.settimeout(0)
    try:
        return bytes(end.recv(CHUNK))
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None
    finally:
        end.settimeout(None)


# The process


def wait_for(owner: int) -> None:
    """Return when the process ``owner`` has ended."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            descriptor = os.pidfd_open(owner)
            select.select([descriptor], [], [])
            return
    while _runs(owner):
        time.sleep(0.2)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _detach() -> None:
    """Go on in a process that is nobody's child, in a session of its own, with no open streams."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def main() -> None:
    plan = Plan.parse(sys.stdin.buffer.read())
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    tunnel = Tunnel(plan)
    listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    _detach()
    threading.Thread(target=tunnel.serve, args=(listener,), daemon=True).start()
    wait_for(plan.owner)
    os._exit(0)
