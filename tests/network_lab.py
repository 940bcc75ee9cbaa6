"""Networks that are made for a test and go with it: a machine with an engine of its own, and a world behind it.

Everything is in namespaces: no route, no rule and no interface of the host that runs the tests is touched.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.integration.cli import Cli

MACHINE, OUTSIDE = "10.77.0.2", "10.77.0.1"
"""The two ends of the only way out of the machine."""
PROXY = "10.77.0.9"
UPSTREAM, UPSTREAM_MOVED, RESOLVER, RESOLVER_MOVED = "10.99.0.1", "10.99.0.2", "10.99.0.53", "10.99.0.54"
PATIENCE = 60.0
_TOOLS = ("dockerd", "docker", "unshare", "nsenter", "ip", "iptables", "mount")


def why_not() -> str:
    """Why such networks can't be made here; empty when they can."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if os.getuid() != 0:
        return "a network of its own needs root"
    return f"a network of its own needs {', '.join(missing)}" if missing else ""


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def run(*words: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@contextlib.contextmanager
def _inside(path: str) -> Iterator[None]:
    """This thread, and the sockets that it makes meanwhile, are in a namespace."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path(path).open("rb") as there:
        if setns(there.fileno(), 0):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            assert setns(home.fileno(), 0) == 0


class Namespace:
    """A network namespace; what listens in it was made inside ``with``, and is served from anywhere."""

    def __init__(self) -> None:
        self.name = f"deployer-{uuid.uuid4().hex[:8]}"
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words: str) -> str:
        return run("ip", "netns", "exec", self.name, *words)

    def inside(self) -> AbstractContextManager[None]:
        return _inside(f"/run/netns/{self.name}")

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)


class Machine:
    """A host with a docker engine: one way out, by default an interface ``eth9``; all of it ends with ``stop``."""

    engine = "docker"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.resolv_conf, self.hosts = directory / "resolv.conf", directory / "hosts"
        self._files()
        boot = (
            f"ip link set lo up && mount --bind {self.resolv_conf} /etc/resolv.conf"
            f" && mount --bind {self.hosts} /etc/hosts && mkdir {directory}/sys && mount -t sysfs sysfs {directory}/sys"
            # The interfaces that sysfs shows are those of whoever mounted it; all else has to stay as it is.
            f" && mount --bind {directory}/sys/devices/virtual/net /sys/devices/virtual/net"
            f' && mount --bind {directory}/sys/class/net /sys/class/net && exec "$@"'
        )
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"),
                    *("sh", "-c", boot, "boot", *self._serving()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _serving(self) -> tuple[str, ...]:
        """What runs as long as the machine does."""
        return (
            *("dockerd", f"--host={self.env['DOCKER_HOST']}", f"--data-root={self._directory}/disk"),
            *(f"--exec-root={self._directory}/exec", f"--pidfile={self._directory}/pid", "--bip=172.31.255.1/24"),
        )

    @property
    def env(self) -> dict[str, str]:
        """The variables by which a user finds the engine."""
        return {"DOCKER_HOST": f"unix://{self._directory}/docker.sock"}

    def _files(self) -> None:
        # Written in place: other files would not be those that are mounted.
        self.resolv_conf.write_text(f"nameserver {RESOLVER}\n")
        self.hosts.write_text("127.0.0.1 localhost\n::1 localhost\n")

    def reset(self) -> None:
        """Undo what a test did to its files and its rules."""
        self._files()
        self.run("iptables", "-t", "mangle", "-F", "FORWARD")

    def drop_forwarded(self) -> None:
        """Have a kill switch: nothing that is forwarded goes out by ``tun9``, whatever an engine's own rules say."""
        self.run("iptables", "-t", "mangle", "-A", "FORWARD", "-o", "tun9", "-j", "DROP")

    def wait(self) -> None:
        until(lambda: self._answers() or self._process.poll() is not None)
        assert self._answers(), self._log.read_text()

    def _answers(self) -> bool:
        return subprocess.run(self._asking("version"), capture_output=True, check=False, env=self._env).returncode == 0

    @property
    def _env(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def _asking(self, *words: str) -> list[str]:
        return ["docker", *words]

    def on_it(self, *words: str) -> list[str]:
        """The command with this machine's network, files and processes."""
        space = f"/proc/{self._process.pid}/ns"
        kinds = (f"--net={space}/net", f"--mount={space}/mnt", f"--pid={space}/pid_for_children")
        return ["nsenter", *kinds, "--", *words]

    def run(self, *words: str) -> str:
        return run(*self.on_it(*words))

    def inside(self) -> AbstractContextManager[None]:
        return _inside(f"/proc/{self._process.pid}/ns/net")

    def ask(self, *words: str) -> str:
        """What the engine's own client says."""
        return run(*self._asking(*words), env=self._env).strip()

    def has(self, image: str) -> None:
        """Give it an image of this host's engine."""
        with subprocess.Popen([self.engine, "save", image], stdout=subprocess.PIPE) as saved:
            loading = self._asking("load")
            subprocess.run(loading, stdin=saved.stdout, check=True, capture_output=True, env=self._env)

    @contextlib.contextmanager
    def connected(self, world: Namespace, *, name: str = "eth9", mtu: int = 1500) -> Iterator[str]:
        """Have an only way out, to ``world``: an interface ``name``, whose other end is yielded."""
        peer = f"d{uuid.uuid4().hex[:8]}"
        run("ip", "link", "add", peer, "type", "veth", "peer", "name", f"{peer}m")
        run("ip", "link", "set", peer, "netns", world.name)
        run("ip", "link", "set", f"{peer}m", "netns", str(self._process.pid), "name", name)
        world.run("ip", "addr", "add", f"{OUTSIDE}/24", "dev", peer)
        world.run("ip", "addr", "add", f"{PROXY}/24", "dev", peer)
        world.run("ip", "link", "set", peer, "up")
        self.run("ip", "addr", "add", f"{MACHINE}/24", "dev", name)
        self.run("ip", "link", "set", name, "mtu", str(mtu), "up")
        self.run("ip", "route", "add", "default", "via", OUTSIDE)
        try:
            yield peer
        finally:
            self.run("ip", "link", "del", name)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class PodmanMachine(Machine):
    """The same with podman, which serves nothing: it is run there, and keeps all in the machine's directory."""

    engine = "podman"

    def _serving(self) -> tuple[str, ...]:
        top = self._directory
        # Locks in memory would be those of the podman of the host that runs the tests.
        engine = f'[engine]\nlock_type = "file"\ntmp_dir = "{top}/tmp"\n'
        own = os.environ.get("CONTAINERS_CONF")
        settings = Path(own).read_text() if own else ""
        (top / "containers.conf").write_text(
            settings.replace("[engine]\n", engine) if "[engine]" in settings else f"{settings}{engine}"
        )
        (top / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{top}/disk"\nrunroot = "{top}/run"\n'
        )
        return ("sleep", "infinity")

    @property
    def env(self) -> dict[str, str]:
        settings = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf"}
        return {name: str(self._directory / file) for name, file in settings.items()}

    def _asking(self, *words: str) -> list[str]:
        return self.on_it("podman", *words)


def world() -> Namespace:
    """The outside: a namespace with the addresses that upstreams and resolvers listen at."""
    made = Namespace()
    for address in (UPSTREAM, UPSTREAM_MOVED, RESOLVER, RESOLVER_MOVED):
        made.run("ip", "addr", "add", f"{address}/32", "dev", "lo")
    return made


@dataclass
class Seated(Cli):
    """A user who sits at the machine."""

    machine: Machine = field(kw_only=True)

    def argv(self, *words: str) -> list[str]:
        return self.machine.on_it(*super().argv(*words))


class Resolver(threading.Thread):
    """A name server that knows the addresses of ``names``, and of nothing else."""

    def __init__(self, names: dict[str, str], *, address: str) -> None:
        super().__init__(daemon=True)
        self.names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._wake, self._waker = os.pipe()
        self.start()

    def run(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket, self._wake], [], [])
            if self._wake in ready:
                return
            query, sender = self._socket.recvfrom(512)
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        """RFC 1035: the question back, and one A record where there is one."""
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12 : at + 5]
        (kind,) = struct.unpack_from("!H", query, at + 1)
        address = self.names.get(".".join(labels).lower())
        found = address is not None and kind == 1
        flags = 0x8180 if address is not None else 0x8183  # NXDOMAIN
        head = query[:2] + struct.pack("!HHHHH", flags, 1, int(found), 0, 0)
        record = (
            b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 0, 4) + socket.inet_aton(address or "0.0.0.0") if found else b""
        )
        return head + question + record

    def close(self) -> None:
        os.write(self._waker, b"x")
        self.join()
        self._socket.close()
        os.close(self._wake)
        os.close(self._waker)


class ForwardProxy:
    """An HTTP proxy: CONNECT, and GET of whole addresses. ``asked`` holds what it was asked for."""

    def __init__(self, *, address: str, connect: Callable[[str, int], socket.socket], port: int = 3128) -> None:
        proxy = self
        self.asked: list[str] = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                proxy._serve(self.rfile.readline().decode(), self)

        self._connect = connect
        self._server = socketserver.ThreadingTCPServer((address, port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{address}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _serve(self, line: str, handler: socketserver.StreamRequestHandler) -> None:
        method, target, _ = line.split()
        self.asked.append(target)
        headers = []
        while (header := handler.rfile.readline()) not in (b"\r\n", b""):
            headers.append(header)
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            other = self._connect(host, int(port))
            handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            parts = urlsplit(target)
            other = self._connect(parts.hostname or "", parts.port or 80)
            kept = [header for header in headers if not header.lower().startswith((b"connection", b"proxy-"))]
            request = f"{method} {parts.path} HTTP/1.1\r\n".encode() + b"".join(kept) + b"Connection: close\r\n\r\n"
            other.sendall(request)
        with other:
            _pump(handler.connection, other)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes both ways until either side has no more."""
    with contextlib.suppress(OSError):
        while True:
            for ready in select.select([one, other], [], [])[0]:
                data = ready.recv(1 << 16)
                if not data:
                    return
                (other if ready is one else one).sendall(data)


def need_networks() -> None:
    if reason := why_not():
        pytest.skip(reason)
