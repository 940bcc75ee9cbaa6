"""nginx as a reverse proxy before devpi: a child of this process, which inherits the public sockets.

The sockets are bound in this process, so the port is held from before the start until after the stop. While nginx
restarts, connections wait in the backlog instead of being refused, and no other program can take the port.
A server that begins anew in this process (:mod:`deployer.server.boot.handover`) keeps the nginx that runs.
"""

from __future__ import annotations

import contextlib
import mimetypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from deployer.protocol import BODY_ROUTE, PrivateFile
from deployer.server.cdn import NO_STORE, OPEN_FILE, PRIVATE_FILE, PRIVATE_PAGE, VARY, SharedCaches
from deployer.server.guard.readers import READ
from deployer.server.hosts import MISDIRECTED, REFUSED, KnownHosts
from deployer.server.listening import BACKLOG, port_of
from deployer.server.nginx import certificate, memory
from deployer.server.nginx.https import Https, Template
from deployer.server.nginx.known import digest
from deployer.server.nginx.program import Nginx, NginxUnusable, log_line
from deployer.server.outside import Outside
from deployer.server.secret_files import Private, write_private

FIRST_PAUSE, LONGEST_PAUSE, STEADY = 0.1, 5.0, 10.0
"""Seconds before nginx is restarted: doubled each time, reset once it has run for STEADY seconds."""
MOST_FAILURES = 5
"""Quick exits in a row after which devpi serves without nginx."""
LARGEST_BODY = 2**30
"""Bytes of the largest upload, devpi's default. nginx has the same limit, and refuses a larger one at once."""
SMALL_BODY_DIGITS = 4
"""A body whose length has at most so many digits, less than 10 kB, needs no login. It fits nginx's buffer."""
SENT = 256 << 10
"""Bytes that the kernel keeps for each client (SO_SNDBUF): with its default of megabytes a client that takes a
kilobyte a second makes no progress for half an hour."""
FEWEST = 16
"""Fewest connections with which nginx is useful."""
FINISH = 1.0
"""Seconds between SIGQUIT, with which nginx finishes the requests under way, and SIGTERM."""
DRAINED = 3.0
"""Seconds between SIGTERM and SIGKILL."""
_SOCKET_PATH = 100
"""Most bytes of a socket's path, with a margin (unix(7): 108)."""
_SUFFIXES = {"whl": "x.whl", "zip": "x.zip", "gz": "x.tar.gz", "tgz": "x.tgz", "bz2": "x.tar.bz2", "egg": "x.egg"}
# SIGTERM to the master when its parent dies (prctl(2)): it stops its workers; SIGKILL would leave them running.
TIED = """\
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
      proxy_set_header X-Deployer-Forwarded $http_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $client_scheme;
      proxy_set_header X-Forwarded-Host "";
      proxy_set_header X-Forwarded-Port "";
      proxy_set_header X-Forwarded-By "";
      proxy_set_header Forwarded "";
      proxy_hide_header X-Deployer-Kept;
      proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;
      proxy_redirect off;
      proxy_next_upstream off;
      proxy_max_temp_file_size 0;
      proxy_buffers 4 16k;
      proxy_buffer_size 16k;
      proxy_connect_timeout 10s;
      proxy_send_timeout %{wait}s;
      proxy_read_timeout %{wait}s;
"""


_PAGE = """\
      types { }
      default_type "";
      # The ETag is made of mtime and size, and the mtime of the content: it is no date (pages/tags.py).
      if_modified_since off;
      max_ranges 0;
      %{gzip_static}
      add_header Last-Modified "";
      add_header Content-Type $page_type;
      add_header Vary $page_vary;
      add_header X-Content-Type-Options nosniff;
      add_header Content-Security-Policy "default-src 'none'; frame-ancestors 'none'";
"""
_FILE = """\
      limit_conn files %{of_one_client};
      limit_conn file %{of_one_file};
      types { %{types} application/vnd.pypi.integrity.v1+json provenance; }
      gzip off;
      add_header X-Content-Type-Options nosniff;
"""
# What not everybody may read. nginx never refuses it: who has no grant is judged by the server. A grant that does not
# exist is an error in nginx's eyes, and a wrong password, too: both are daily work here.
_GRANTED = """\
      error_page 401 403 404 500 = @devpi;
      error_log stderr crit;
      if ($reader = "") { return 404; }
      auth_basic pypi;
      auth_basic_user_file $document_root/%{granted}/$index_name/$reader$token;
"""
_NEVER_GRANTED = "      error_page 404 = @devpi;\n      return 404;\n"


class _Adopted:
    """A child that the former program of this process started, with what is used of :class:`subprocess.Popen`."""

    _LOOK = 0.05

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        until = time.monotonic() + timeout
        while True:
            with contextlib.suppress(InterruptedError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("nginx", timeout)
            time.sleep(self._LOOK)


_Child = subprocess.Popen[bytes] | _Adopted


class ReverseProxy:
    """Runs nginx, and restarts it, until this process ends or nginx failed too often."""

    def __init__(
        self,
        nginx: Nginx,
        serverdir: Path,
        listeners: Sequence[socket.socket],
        *,
        request_timeout: int,
        files: bool,
        hosts: KnownHosts,
        outside: Outside,
        caches: SharedCaches,
        tls_port: int = 0,
        inner: int = -1,
        running: int = 0,
    ) -> None:
        """``request_timeout``: seconds that an upstream has. ``files``: whether anybody may read every file. ``hosts``:
        whose name requests may be for. ``outside``: the address of a proxy in front. ``caches``: between us and our
        clients. ``tls_port``: the port of the listeners for HTTPS; 0 without. ``inner``, ``running``: the descriptor
        and the process of a front that was kept.

        Raises NginxUnusable when nginx rejects the configuration.
        """
        self.nginx = nginx
        self.failed = ""
        """Why nginx was given up; empty while it was not."""
        self.gone = threading.Event()
        """Set once nginx has ended and will not be restarted."""
        self._serverdir = serverdir
        self._listeners = tuple(listeners)
        for listener in listeners:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENT)  # inherited by connections
        self._lock = threading.RLock()  # a second signal may arrive while the first one holds it
        self._child: _Child | None = _Adopted(running) if running else None
        self._stopping = False
        self._tls_port = tls_port
        self.certificate = certificate.mark(Private.of(serverdir).tls)
        """Mark of the certificate that nginx reads, or of one before it."""
        self._run = Private.of(serverdir).nginx
        self.inner, self.socket = self._kept(inner) if inner >= 0 else self._made(serverdir)
        """The socket on which devpi listens; requests of nginx wait in its backlog until then."""
        self._outdated = False
        self._config = self._run / "nginx.conf"
        configuration = self._render(
            request_timeout=request_timeout, files=files, hosts=hosts, outside=outside, caches=caches
        )
        if running and self._config.read_text(encoding="utf-8") == configuration:
            return
        write_private(self._config, configuration, durable=False)  # made anew at each start
        self._test(digest(self._command(), configuration))
        self._outdated = bool(running)

    def _made(self, serverdir: Path) -> tuple[socket.socket, Path]:
        memory.remove(self._run)
        shutil.rmtree(self._run, ignore_errors=True)
        self._run.mkdir(mode=0o700)
        memory.make(self._run)
        Private.of(serverdir).access_log.parent.mkdir(mode=0o700, exist_ok=True)
        path, inner = _socket_path(self._run), socket.socket(socket.AF_UNIX)
        inner.bind(str(path))
        inner.listen(BACKLOG)
        return inner, path

    def _kept(self, descriptor: int) -> tuple[socket.socket, Path]:
        inner = socket.socket(fileno=descriptor)
        return inner, Path(inner.getsockname())

    def _render(
        self, *, request_timeout: int, files: bool, hosts: KnownHosts, outside: Outside, caches: SharedCaches
    ) -> str:
        for path in (str(self._serverdir), str(self.socket)):
            if not re.fullmatch(
                r"[^\x00-\x1f\x7f$\"\\\ud800-\udfff]+", path
            ):  # the last range stands for bytes that are not UTF-8
                raise NginxUnusable(f"nginx can't use the path {path!r}")
        connections = open_files() // 2 - 32
        if connections < FEWEST:
            raise NginxUnusable(f"the limit of open files is too low (ulimit -n): {open_files()}")
        workers, prefix = min(os.cpu_count() or 1, 2), _prefix(outside)
        run = PrivateFile.NGINX.relative
        few = {"of_one_client": connections // 3, "of_one_file": connections // 6}
        types = " ".join(f"{_content_type(example)} {suffix};" for suffix, example in _SUFFIXES.items())
        # A word that nginx does not know would have it reject the whole configuration.
        packed = "gzip_static on;" if self.nginx.has("http_gzip_static_module") else ""
        granted = _GRANTED if self.nginx.grants else _NEVER_GRANTED
        template = Path(__file__).with_name("nginx.conf.template").read_text(encoding="utf-8")
        return Template(template).substitute(
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            connections=connections,
            socket=self.socket,
            largest=LARGEST_BODY,
            of_one_client=few["of_one_client"],
            hosts=hosts.pattern,
            # A rewritten path is sent on in another spelling: without a prefix nothing is rewritten.
            own_uri=f'"~^{prefix}(/.*)$" $1;' if prefix else "",
            own_path=f'rewrite "^{prefix}(/.*)$" $1;' if prefix else "",
            real_ip=self._real_ip(outside),
            client_scheme=self._client_scheme(outside),
            misdirected=MISDIRECTED,
            refused=REFUSED,
            kept_page=caches.pages,
            private_page=PRIVATE_PAGE,
            kept_file=OPEN_FILE,
            private_file=PRIVATE_FILE,
            vary_json=VARY["json"],
            vary_html=VARY["html"],
            no_store=NO_STORE,
            small=SMALL_BODY_DIGITS,
            bodiless=10**SMALL_BODY_DIGITS,
            admission=BODY_ROUTE,
            listen="".join(f"    listen {self._listen(listener)};\n" for listener in self._listeners),
            tls=self._https().directives if self._tls_port else "",
            proxy=Template(_PROXY).substitute(wait=300 + 4 * request_timeout),
            pages=PrivateFile.PAGES.relative,
            run=run,
            read=READ,
            files="files" if files else "nothing",
            canonical="canonical" if files else "nothing",
            companions="companions" if files else "nothing",
            page=Template(_PAGE).substitute(gzip_static=packed),
            file=Template(_FILE).substitute(few, types=types),
            granted=Template(granted).safe_substitute(granted=f"{run}/{memory.GRANTED}"),
            pcre_jit="pcre_jit on;" if self.nginx.has("pcre-jit") else "",
        )

    def _listen(self, listener: socket.socket) -> str:
        """The address and the options of a listener."""
        if port_of(listener) != self._tls_port:
            return _address(listener)
        return f"{_address(listener)} {self._https().listen}"

    def _https(self) -> Https:
        """Raises NginxUnusable when this nginx has no HTTPS."""
        unknown = f'if ($known_host = 0) {{ return {MISDIRECTED} "{REFUSED}\\n"; }}'
        return Https.of(self.nginx, f"../{PrivateFile.TLS}", mark=self.certificate, unknown=unknown)

    def _real_ip(self, outside: Outside) -> str:
        """Who the clients of trusted proxies are: for the access log, and for the limits of one address."""
        if not outside.trusted:
            return ""
        if not self.nginx.has("http_realip_module"):
            raise NginxUnusable("nginx lacks its realip module, which network.trusted_proxies needs")
        lines = (f"set_real_ip_from {network};" for network in outside.trusted)
        return "\n  ".join((*lines, "real_ip_header X-Forwarded-For;", "real_ip_recursive on;"))

    @staticmethod
    def _client_scheme(outside: Outside) -> str:
        """Whether the client came by HTTPS; a trusted proxy knows."""
        if not outside.trusted:
            return "map $scheme $client_scheme { default $scheme; }"
        trusted = " ".join(f"{network} 1;" for network in outside.trusted)
        return (
            f"geo $realip_remote_addr $by_proxy {{ default 0; {trusted} }}\n"
            '  map "$by_proxy $http_x_forwarded_proto" $client_scheme { default $scheme; "1 https" https; }'
        )

    def _command(self) -> tuple[str, ...]:
        return (self.nginx.path, *self.nginx.options, "-p", str(self._serverdir), "-c", str(self._config))

    def _test(self, configuration: str) -> None:
        """Have nginx test its configuration, unless it accepted one with the same digest."""
        if self.nginx.known.accepted == configuration:
            return
        done = subprocess.run(
            [*self._command(), "-t", "-q"], capture_output=True, text=True, timeout=30, check=False, env=environment()
        )
        if done.returncode:
            raise NginxUnusable(f"nginx rejects its configuration: {' '.join(done.stderr.split())[-500:]}")
        replace(self.nginx.known, accepted=configuration).write(Private.of(self._serverdir).nginx_known)

    def start(self) -> None:
        """Start nginx, and watch it from a thread.

        prctl(2) ties a child to the thread that started it. The main thread calls this, and goes on when the process
        begins anew.
        """
        with contextlib.suppress(OSError):  # the thread will see
            self._child = self._child or self._spawn()
        threading.Thread(target=self._supervise, name="front", daemon=True).start()

    def reload(self) -> None:
        """Have an nginx that was kept take another configuration, if there is one. Called once devpi serves: workers of
        the former configuration finish their requests, and have only so much time for those that wait for devpi."""
        with self._lock:
            if self._outdated and self._child is not None:
                self._child.send_signal(signal.SIGHUP)
            self._outdated = False

    def renew(self) -> None:
        """Have nginx read its certificate again. Connections keep the former one until they end."""
        with self._lock:
            if self._child is not None and not self._stopping:
                self._child.send_signal(signal.SIGHUP)

    @contextlib.contextmanager
    def kept(self) -> Iterator[int]:
        """The process of nginx, 0 without, which does not change in the block."""
        with self._lock:
            yield self._child.pid if self._child is not None else 0

    def quit(self) -> None:
        """Have nginx finish the requests under way and exit. Returns at once; ``gone`` is set at the end."""
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
        """Whether :meth:`quit` was called."""
        return self._stopping

    def clean(self) -> None:
        """Remove the files that are only needed while nginx runs."""
        if self.socket.parent != self._run:
            shutil.rmtree(self.socket.parent, ignore_errors=True)
        memory.remove(self._run)
        shutil.rmtree(self._run, ignore_errors=True)

    def _supervise(self) -> None:
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
                Private.of(self._serverdir).nginx_known.unlink(missing_ok=True)
                break
            log_line(f"nginx {how}: restarting")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        self.gone.set()
        os.kill(os.getpid(), signal.SIGTERM)  # the main thread waits for signals only

    def _once(self) -> str:
        """Run nginx until it exits; how it exited."""
        try:
            child = self._child or self._spawn()
        except OSError as error:
            return f"could not start ({error.strerror})"
        return "was stopped" if child is None else f"ended with exit code {self._wait(child)}"

    def _spawn(self) -> _Child | None:
        """Start nginx; None after :meth:`quit`."""
        with self._lock:
            if self._stopping:
                return None
            numbers = [listener.fileno() for listener in self._listeners]
            for listener in self._listeners:
                # Connections inherit the option. Without it, lingering ones would block the port for the next start.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.listen(BACKLOG)
            self._child = subprocess.Popen(
                (sys.executable, "-I", "-S", "-c", TIED, str(os.getpid()), *self._command()),
                stdin=subprocess.DEVNULL,
                env=environment() | {"NGINX": "".join(f"{number};" for number in numbers)},
                pass_fds=numbers,
                process_group=0,
            )
            return self._child

    def _wait(self, child: _Child) -> int:
        """Wait for the end of nginx; its exit code."""
        while True:
            try:
                code = child.wait(0.2)
                break
            except subprocess.TimeoutExpired:
                if self._stopping:
                    code = _ended(child)
                    break
        with self._lock:
            self._child = None
        with contextlib.suppress(ProcessLookupError):  # workers of a killed master finish their requests
            os.killpg(child.pid, signal.SIGQUIT)
        return code


def end(process: int) -> None:
    """End an nginx that was kept and is not wanted; the requests under way are finished."""
    child = _Adopted(process)
    child.send_signal(signal.SIGQUIT)
    _ended(child)


def _ended(child: _Child) -> int:
    """Wait for an nginx that got SIGQUIT; its exit code."""
    for number, seconds in ((signal.SIGTERM, FINISH), (signal.SIGKILL, DRAINED)):
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, number)
    return child.wait(DRAINED)


def end_orphans(private: Private) -> None:
    """Kill the nginx workers that remain when master and server were killed at the same moment.

    The caller holds the lock of the server directory: only an nginx of this directory has its access log open.
    """
    log = str(private.access_log)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == "nginx" and any(
                str(descriptor.readlink()) == log for descriptor in (process / "fd").iterdir()
            ):
                os.kill(int(process.name), signal.SIGKILL)


def environment() -> dict[str, str]:
    # Nothing else: an environment can be read in /proc for as long as nginx runs.
    return {"PATH": os.defpath} | {name: os.environ[name] for name in ("TZ",) if name in os.environ}


def open_files() -> int:
    """The limit of open files, raised as far as it is useful and allowed."""
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
            raise NginxUnusable(f"nginx can't listen on the link-local address {host}")
        return f"[{host}]:{port} ipv6only=on"
    return f"{host}:{port}"


def _prefix(outside: Outside) -> str:
    """A pattern of the path of the outside URL, which a proxy may pass on; empty without one."""
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", outside.prefix):
        raise NginxUnusable(f"nginx can't use the path of network.outside_url {outside.prefix!r}")
    return re.escape(outside.prefix)


def _content_type(name: str) -> str:
    """The content type that devpi sends for a file."""
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
