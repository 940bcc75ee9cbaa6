"""A primary and its replicas as processes on loopback."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from deployer.protocol import MemberStatus
from tests.indexed_server import FILE, JSON, Got, get
from tests.server_process import COMMAND, PATIENCE, Server, request
from tests.upstream import Distribution

SERVES = {"Accept": "application/json"}


@dataclass
class Members:
    """``root``: a directory of the test's own, with one for each member below it."""

    root: Path
    replicas: int = 2
    words: Sequence[str] = ()
    primary: Server = field(init=False)
    others: list[Server] = field(init=False)
    started: list[Server] = field(init=False)  # by their numbers

    def __post_init__(self) -> None:
        self.secret = self.root / "secret"
        self.secret.write_text(secrets.token_urlsafe(48))
        self.secret.chmod(0o600)
        self.primary = Server(self.root / "primary")
        self.others = [Server(self.root / f"replica{number}") for number in range(self.replicas)]
        self.started = self.all

    @property
    def all(self) -> list[Server]:
        return [self.primary, *self.others]

    def start(self) -> Members:
        """Start all of them; the replicas have all data of the primary."""
        self.start_primary()
        for replica in self.others:
            self.launch(replica)
        for replica in self.others:
            self.wait(replica)
        return self

    def start_primary(self, *more: str) -> Server:
        return self.primary.start(*self.role(self.primary), *more)

    def launch(self, replica: Server, *more: str, url: str = "") -> None:
        """Start a replica and don't wait for it. ``url``: of the primary, if it is another one than its own."""
        replica.launch(*self.role(replica, url=url), *more)

    def role(self, member: Server, *, url: str = "") -> tuple[str, ...]:
        """The words that make a server a member: by its number, or by hand if it has none."""
        url = url or f"http://127.0.0.1:{self.primary.port}"
        shared = ("--secret-file", str(self.secret), *self.words)
        if member not in self.started:
            return ("--role", "replica", "--primary-url", url, *shared)
        numbers = ("--member", str(self.number(member)), "--primary", str(self.number(self.primary)))
        return (*numbers, "--primary-url", url, *shared)

    def number(self, member: Server) -> int:
        return self.started.index(member)

    @staticmethod
    def wait(replica: Server, *, seconds: float = PATIENCE) -> Server:
        """Return when a replica serves."""
        deadline = time.monotonic() + seconds
        replica.wait()
        while get(replica.port, "/", SERVES).status != 200:
            assert time.monotonic() < deadline, replica.output[-4000:]
            time.sleep(0.05)
        return replica

    @staticmethod
    def told(member: Server) -> MemberStatus:
        """What ``member status`` prints."""
        words = (*COMMAND, "member", "status", "--serverdir", str(member.serverdir))
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        return MemberStatus.parse(json.loads(done.stdout))

    def wait_until(self, member: Server, holds: Callable[[MemberStatus], bool]) -> MemberStatus:
        """Return what a member reports once that holds."""
        deadline = time.monotonic() + PATIENCE
        while not holds(found := self.told(member)):
            assert time.monotonic() < deadline, (found, member.output[-4000:])
            time.sleep(0.2)
        return found

    def status(self, member: Server) -> dict[str, Any]:
        found = request(member.port, "GET", "/+status")[1]["result"]
        assert isinstance(found, dict), json.dumps(found)
        return found

    def end(self) -> None:
        for member in self.all:
            member.end()


def page(member: Server, index: str, project: str) -> Got:
    return get(member.port, f"/{index}/+simple/{project}/", JSON)


def files(member: Server, index: str, project: str) -> dict[str, str]:
    """The addresses of a project's files by their names."""
    got = page(member, index, project)
    assert got.status == 200, (got.status, got.body, member.output[-4000:])
    above = f"/{index}/+simple/{project}/"
    return {file["filename"]: urljoin(above, file["url"]).partition("#")[0] for file in json.loads(got.body)["files"]}


def fetch(member: Server, index: str, wheel: Distribution) -> Got:
    return get(member.port, files(member, index, wheel.project)[wheel.filename], FILE)


class Behind:
    """A way to a server that is ``seconds`` late with answers to requests that have ``late`` in their path."""

    def __init__(self, port: int, *, seconds: float = 0.0) -> None:
        self.seconds, self.late = seconds, b"/+changelog/"
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = {self._listener}
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._to))
                except OSError:  # it is down
                    client.close()
                    continue
                self._open |= {client, server}
                late = threading.Event()
                for work in (self._asked, self._answered):
                    threading.Thread(target=work, args=(client, server, late), daemon=True).start()

    def _asked(self, client: socket.socket, server: socket.socket, late: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := client.recv(65536):
                if b" HTTP/1.1\r\n" in piece:
                    late.set() if self.late in piece.partition(b"\r\n")[0] else late.clear()
                server.sendall(piece)
            server.shutdown(socket.SHUT_WR)

    def _answered(self, client: socket.socket, server: socket.socket, late: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(65536):
                if late.is_set():
                    time.sleep(self.seconds)
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
