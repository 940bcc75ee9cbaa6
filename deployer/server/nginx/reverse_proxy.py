"""nginx in front of devpi: a child of this process, which holds the public sockets and lends them.

The sockets are bound here and inherited by nginx, so the port is ours from before the start to after the stop. While
nginx is started again, clients wait instead of being refused, and nobody else can take the port.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deployer.server.secret_files import PRIVATE, Private, write_private

BACKLOG = 511
FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
"""Seconds before nginx is started again: doubled each time, forgotten once it ran for STEADY seconds."""
MOST_FAILURES = 5
"""Quick ends in a row after which devpi serves alone."""
LARGEST_BODY = 2**30
"""Bytes of the largest upload, devpi's own default. Where nginx knows it too, no more than that is taken in."""
FEWEST = 16
"""Connections below which nginx is of no use."""
DRAINED = 4.0
"""Seconds that nginx has to end after it was asked to; by its configuration it lets go of every client sooner."""
_SOCKET_PATH = 100
"""Bytes that the path of a socket may have, with room (unix(7): 108)."""
_SUFFIXES = {"whl": "x.whl", "zip": "x.zip", "gz": "x.tar.gz", "tgz": "x.tgz", "bz2": "x.tar.bz2", "egg": "x.egg"}
# A master that is killed leaves its workers behind, one that is asked to end takes them along: so SIGTERM (prctl(2)).
_TIED = """\
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_PROXY = """\
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header X-Outside-URL "";
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host "";
      proxy_set_header X-Forwarded-Port "";
      proxy_set_header X-Forwarded-By "";
      proxy_set_header Forwarded "";
      proxy_hide_header X-Deployer-Kept;
      proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;
      proxy_redirect off;
      proxy_next_upstream off;
      proxy_buffers 8 32k;
      proxy_buffer_size 32k;
      proxy_connect_timeout 10s;
      proxy_send_timeout %{wait}s;
      proxy_read_timeout %{wait}s;
"""


class Unusable(Exception):
    """There is no front here; the message is why."""


class _Template(string.Template):
    delimiter = "%"  # a dollar is nginx's own


@dataclass(frozen=True, kw_only=True)
class Nginx:
    """The program: where it is, and what it says of itself."""

    path: str
    version: str
    modules: str

    @classmethod
    def find(cls) -> Nginx:
        """The one that is installed. Raises Unusable."""
        if sys.platform != "linux":
            raise Unusable(f"on {sys.platform} nginx could outlive the server")
        path = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
        if path is None:
            raise Unusable("nginx is not installed")
        try:
            told = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=True).stderr
        except (OSError, subprocess.SubprocessError) as error:
            raise Unusable(f"{path} does not run: {error}") from None
        version = re.search(r"nginx version: \S+?/([\d.]+)", told)
        if version is None:
            raise Unusable(f"{path} tells no version")
        return cls(path=path, version=version[1], modules=told)

    @property
    def options(self) -> tuple[str, ...]:
        # Older ones open the log that they were built with before they read any configuration, and complain.
        numbers = tuple(int(number) for number in self.version.split("."))
        return ("-e", "stderr") if numbers >= (1, 19, 5) else ()


class Front:
    """One nginx at a time, for as long as this process lives, or until it is given up."""

    def __init__(
        self, nginx: Nginx, serverdir: Path, listeners: Sequence[socket.socket], *, request_timeout: int, files: bool
    ) -> None:
        """``request_timeout``: seconds that an upstream has; ``files``: whether everybody may read every file.

        Raises Unusable when nginx refuses the configuration.
        """
        self.nginx = nginx
        self.failed = ""
        """Why it was given up; empty while it was not."""
        self.gone = threading.Event()
        """Set once nginx has ended for good."""
        self._serverdir = serverdir
        self._listeners = tuple(listeners)
        self._lock = threading.RLock()  # a second signal may come while the first one's is held
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._run = Private.of(serverdir).directory / "run"
        shutil.rmtree(self._run, ignore_errors=True)
        self._run.mkdir(mode=0o700)
        Private.of(serverdir).access_log.parent.mkdir(mode=0o700, exist_ok=True)
        self.socket = _socket_path(self._run)
        self.inner = socket.socket(socket.AF_UNIX)
        """Where devpi is to listen, and what nginx asks meanwhile waits."""
        self.inner.bind(str(self.socket))
        self.inner.listen(BACKLOG)
        self._config = self._run / "nginx.conf"
        write_private(self._config, self._render(request_timeout=request_timeout, files=files))
        self._test()

    def _render(self, *, request_timeout: int, files: bool) -> str:
        for path in (str(self._serverdir), str(self.socket)):
            if not re.fullmatch(r"[^\x00-\x1f\x7f$\"\\\ud800-\udfff]+", path):  # the last are bytes that are no text
                raise Unusable(f"nginx can't be given the path {path!r}")
        connections = _open_files() // 2 - 32
        if connections < FEWEST:
            raise Unusable(f"too few files may be open at once (ulimit -n): {_open_files()}")
        workers = min(os.cpu_count() or 1, 2)
        template = Path(__file__).with_name("nginx.conf.template").read_text(encoding="utf-8")
        return _Template(template).substitute(
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            connections=connections,
            socket=self.socket,
            largest=LARGEST_BODY,
            listen="".join(f"    listen {_address(listener)};\n" for listener in self._listeners),
            proxy=_Template(_PROXY).substitute(wait=300 + 4 * request_timeout),
            pages=f"{PRIVATE}/pages",
            files="+files" if files else f"{PRIVATE}/run/nothing",
            gzip_static="on" if "http_gzip_static_module" in self.nginx.modules else "off",
            types=" ".join(f"{_content_type(example)} {suffix};" for suffix, example in _SUFFIXES.items()),
        )

    def _words(self) -> tuple[str, ...]:
        return (self.nginx.path, *self.nginx.options, "-p", str(self._serverdir), "-c", str(self._config))

    def _test(self) -> None:
        told = subprocess.run(
            [*self._words(), "-t", "-q"], capture_output=True, text=True, timeout=30, check=False, env=_environment()
        )
        if told.returncode:
            raise Unusable(f"nginx refuses its configuration: {' '.join(told.stderr.split())[-500:]}")

    def start(self) -> None:
        """Start nginx, in a thread that stays: the kernel ties a child to its thread."""
        threading.Thread(target=self._keep, name="front", daemon=True).start()

    def quit(self) -> None:
        """Ask nginx to answer what it was asked, and to end. Returns at once; ``gone`` is set when it has."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            for listener in self._listeners:
                listener.close()
            if self._child is not None:
                self._child.send_signal(signal.SIGQUIT)

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stopping

    def clean(self) -> None:
        """Remove what is only of use while it runs."""
        if self.socket.parent != self._run:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
        shutil.rmtree(self._run, ignore_errors=True)

    def _keep(self) -> None:
        failures, pause = 0, FIRST_PAUSE
        while not self._stopping:
            started = time.monotonic()
            how = self._once()
            if self._stopping:
                break
            if time.monotonic() - started > STEADY:
                failures, pause = 0, FIRST_PAUSE
            failures += 1
            if failures == MOST_FAILURES:
                self.failed = f"nginx {how}, {failures} times in a row"
                break
            tell(f"nginx {how} and is started again")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self.gone.set()
        os.kill(os.getpid(), signal.SIGTERM)  # the main thread waits for nothing but signals

    def _once(self) -> str:
        """Run nginx until it ends; how it ended."""
        try:
            child = self._spawn()
        except OSError as error:
            return f"can't be started: {error.strerror}"
        return "was to end" if child is None else f"ended with exit code {self._wait(child)}"

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        """A new nginx; None once it is to stop."""
        with self._lock:
            if self._stopping:
                return None
            numbers = [listener.fileno() for listener in self._listeners]
            for listener in self._listeners:
                # Connections have it from here. Without it those that linger would keep the port from the next start.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.listen(BACKLOG)
            self._child = subprocess.Popen(
                (sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *self._words()),
                stdin=subprocess.DEVNULL,
                env=_environment() | {"NGINX": "".join(f"{number};" for number in numbers)},
                pass_fds=numbers,
                process_group=0,
            )
            return self._child

    def _wait(self, child: subprocess.Popen[bytes]) -> int:
        """The exit code of nginx, once all its processes are gone."""
        while True:
            try:
                code = child.wait(DRAINED if self._stopping else 1.0)
                break
            except subprocess.TimeoutExpired:
                if self._stopping:
                    os.killpg(child.pid, signal.SIGKILL)
        with self._lock:
            self._child = None
        with contextlib.suppress(ProcessLookupError):  # workers of a master that was killed finish what they began
            os.killpg(child.pid, signal.SIGQUIT)
        return code


def end_orphans(private: Private) -> None:
    """Kill what is left of an nginx whose master and whose server were killed in the same moment.

    To be called by whoever holds the server directory: only an nginx of its own has that access log open.
    """
    log = str(private.access_log)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == "nginx" and any(
                str(descriptor.readlink()) == log for descriptor in (process / "fd").iterdir()
            ):
                os.kill(int(process.name), signal.SIGKILL)


def tell(line: str) -> None:
    """One line for the log."""
    sys.stderr.write(f"deployer: {line}\n")
    sys.stderr.flush()


def _environment() -> dict[str, str]:
    # Nothing of ours: what is in it stays readable in /proc for as long as nginx runs.
    return {"PATH": os.defpath} | {name: os.environ[name] for name in ("TZ",) if name in os.environ}


def _open_files() -> int:
    """How many files a process may have open, after asking for as many as are of use."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return 4096 if soft == resource.RLIM_INFINITY else min(4096, soft)


def _socket_path(run: Path) -> Path:
    path = run / "devpi"
    if len(os.fsencode(path)) <= _SOCKET_PATH:
        return path
    short = tempfile.mkdtemp(prefix="deployer-", dir="/tmp")
    return Path(short) / "devpi"


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if listener.family == socket.AF_INET6:
        if "%" in host or listener.getsockname()[3]:
            raise Unusable(f"nginx can't listen on {host}, an address of one link")
        return f"[{host}]:{port} ipv6only=on"
    return f"{host}:{port}"


def _content_type(name: str) -> str:
    """As devpi tells it of a file."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
