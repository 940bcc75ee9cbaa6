"""devpi-server, in this process: the first boot, the adoption of older data, and serving."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from deployer.server import secret_files
from deployer.server.boot import copying, passwords, prepare
from deployer.server.boot.supervisor import size
from deployer.server.devpi.installed import installed
from deployer.server.nginx import metrics, statistics
from deployer.server.nginx.reverse_proxy import LARGEST_BODY, Front, Nginx, Unusable, end_orphans, tell
from deployer.server.nginx.statistics import Statistics
from deployer.server.refusal import TAKEN, Refusal
from deployer.server.secret_files import Private

if TYPE_CHECKING:
    from pluggy import PluginManager

FAILED = 1
# What devpi-server spends on deriving its signing key from the secret. Stretching protects a weak secret; ours is 384
# random bits, for which it only costs half a gigabyte and ten seconds at every start (see SECURITY.md).
_CHEAP = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def serve(options: argparse.Namespace) -> int:
    """Prepare the server directory, then serve until a signal says stop; the exit code."""
    os.umask(0o077)
    gc.disable()  # what is loaded now stays, and looking for what may go would take a tenth of the start
    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    serverdir = Path(options.serverdir).absolute()
    try:
        with prepare.locked(serverdir) as private, contextlib.ExitStack() as ports:
            end_orphans(private)
            listeners = [ports.enter_context(listener) for listener in bind(options.host, options.port)]
            copying.check_whole(private)
            prepare.repair(serverdir, private)
            code = _serve_on(options, serverdir, private, listeners, stop)
    except Refusal as refusal:
        return _tell(refusal.cause, refusal.cure, refusal.code)
    except KeyboardInterrupt:
        return 0
    if stop.front is not None and stop.front.failed and not stop.front.stopping:
        tell(f"{stop.front.failed}: devpi serves alone from now on")
        again = (sys.executable, "-m", "deployer.server", *sys.argv[1:], "--front", "python")
        os.execv(sys.executable, again)  # noqa: S606 - the same program, in the same process
    return code


class _Stop:
    """What a signal does: nginx first, so that it can answer what it was asked, and then devpi.

    The first process of a container has no default handlers: without this one SIGTERM would be ignored. One signal is
    enough; another must not cut the orderly stop short. It is heard and not ignored: of a signal that came before it
    was to be ignored, Python prints that it lost a race.
    """

    def __init__(self) -> None:
        self.front: Front | None = None
        self._done = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        if self.front is not None and not self.front.gone.is_set():
            self.front.quit()
        elif not self._done:
            self._done = True
            raise KeyboardInterrupt


def _tell(cause: str, cure: str, code: int) -> int:
    # These two lines are looked for by whoever waits for this server (deployer.readiness.last_words).
    sys.stderr.write(f"deployer: exit code {code}: {cause}\ndeployer: {cure}\n")
    sys.stderr.flush()
    return code


def bind(host: str, port: int) -> list[socket.socket]:
    """Take the port before anything else is done, and hold it: devpi would tell by a traceback, a second later.

    Nobody can connect to it yet. Raises Refusal.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Refusal(f"{host} is no address: {error.strerror}", cure="choose another", code=TAKEN) from None
    taken: list[socket.socket] = []
    for family, kind, protocol, _, address in found:
        listener = socket.socket(family, kind, protocol)
        taken.append(listener)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            _bind(listener, address)
            # It is wanted for our own turn only: two that allow it may both have a port that nobody listens on yet.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        except OSError as error:
            for other in taken:
                other.close()
            why = "is taken" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
            raise Refusal(f"port {port} of {host} {why}", cure="free it, or choose another", code=TAKEN) from None
    return taken


def _bind(listener: socket.socket, address: Any) -> None:
    deadline = time.monotonic() + prepare.LOCK_PATIENCE
    while True:
        try:
            return listener.bind(address)
        except OSError as error:
            # The nginx of a server that was killed is on its way out.
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _serve_on(
    options: argparse.Namespace, serverdir: Path, private: Private, listeners: Sequence[socket.socket], stop: _Stop
) -> int:
    _keep_temporary_files(private)
    try:
        secret_files.ensure_keys(private)
        first = prepare.needs_first_boot(serverdir, private)
        # Before devpi is loaded: hashing may need 64 MiB for a moment.
        pwhash = _first_password(serverdir, private) if first else ""
        from devpi_server.main import Fatal

        plugins = _plugins(web=options.web)
        if first:
            _first_boot(serverdir, private, plugins, pwhash)
        stop.front = _front(options, serverdir, private, plugins, listeners)
        secret_files.write_private(private.running, f"{options.host} {options.port}\n")
        try:
            _devpi(options, serverdir, private, plugins, listeners, stop.front)
        except Fatal as error:
            return _tell(str(error), "see the lines above", FAILED)
        finally:
            if stop.front is not None:
                stop.front.clean()
        secret_files.remove(private.running)
    except OSError as error:
        if error.errno in _FULL:
            return _tell(f"{serverdir} can't be written: {error.strerror}", "free some space", FAILED)
        raise
    return 0


def _keep_temporary_files(private: Private) -> None:
    """Beside the data: an upload is written to one, and a container's ``/tmp`` is a small part of its memory."""
    with contextlib.suppress(OSError):  # a full disk, on which what is there can still be read
        shutil.rmtree(private.temporary, ignore_errors=True)
        private.temporary.mkdir(mode=0o700)
        tempfile.tempdir = str(private.temporary)


def _front(
    options: argparse.Namespace,
    serverdir: Path,
    private: Private,
    plugins: PluginManager,
    listeners: Sequence[socket.socket],
) -> Front | None:
    """nginx, where there is one that will do; else the reason is logged and kept. Raises Refusal where it must be."""
    front: Front | None = None
    why_not = "it is switched off (server.front)"
    # A plugin that decides who reads packages must be asked each time.
    files = not plugins.hook.devpiserver_stage_get_principals_for_pkg_read.get_hookimpls()
    try:
        if options.front != "python":
            front = Front(Nginx.find(), serverdir, listeners, request_timeout=options.request_timeout, files=files)
    except Unusable as problem:
        if options.front == "nginx":
            raise Refusal(str(problem), cure="install nginx, or set server.front to auto", code=TAKEN) from None
        why_not = str(problem)
        tell(f"devpi serves alone, and slower: {why_not}")
    secret_files.write_private(
        private.front, (f"nginx {front.nginx.version}" if front else f"python: {why_not}") + "\n"
    )
    return front


def _plugins(*, web: bool) -> PluginManager:
    from devpi_server.config import get_pluginmanager

    from deployer.server import plugin

    manager = get_pluginmanager(load_entrypoints=False)
    if not web:
        # Blocked before entry points are loaded, so that it is not even imported: it costs time and memory, and makes
        # the server fetch the list of all names of each mirror.
        for entry in entry_points(group="devpi_server"):
            if entry.dist is not None and entry.dist.name == "devpi-web":
                manager.set_blocked(entry.name)
    manager.load_setuptools_entrypoints("devpi_server")
    manager.register(plugin, name="deployer")
    if find_spec("devpi_tokens") is not None:
        from deployer.server.devpi import tokens

        tokens.serialise()
        manager.register(tokens, name="deployer-tokens")
    manager.check_pending()
    return manager


def _first_password(serverdir: Path, private: Private) -> str:
    """Clear what an earlier first boot may have begun, and choose root's password; its hash."""
    prepare.start_over(serverdir, private)
    known = secret_files.read_text(private.root_password)
    if known is None:
        return passwords.hash_random(secret_files.new_password(private.root_password))
    from devpi_server.auth import hash_password

    return str(hash_password(known))  # somebody may have chosen it


def _first_boot(serverdir: Path, private: Private, plugins: PluginManager, pwhash: str) -> None:
    """Initialise, with a root password that is neither empty nor on any command line. Raises Refusal."""
    from devpi_server.init import init

    # A list in this process, not its command line.
    words = ["devpi-init", "--serverdir", str(serverdir), "--no-root-pypi", "--root-passwd-hash", pwhash]
    if init(pluginmanager=plugins, argv=words):
        raise Refusal(f"{serverdir} can't be initialised", cure="see the lines above", code=FAILED)
    prepare.finish_first_boot(private)


def _devpi(
    options: argparse.Namespace,
    serverdir: Path,
    private: Private,
    plugins: PluginManager,
    listeners: Sequence[socket.socket],
    front: Front | None,
) -> None:
    from devpi_server.config import parseoptions
    from devpi_server.log import configure_logging
    from devpi_server.main import xom_from_config

    from deployer.server.upstream import outbound

    passwords.serialise()
    plugins.register(outbound.Outbound.to(options.push_to), name=outbound.NAME)
    config = parseoptions(plugins, _words(options, serverdir, private, front))
    configure_logging(config.args)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masking(handler.formatter))
    xom = xom_from_config(config)
    if secret_files.read_text(private.root_password) is None:
        _adopt(xom, private)
    if front is not None:
        # What devpi says it is serving at.
        config.waitress_info["addresses"].append(
            f"http://{options.host}:{options.port}, by nginx {front.nginx.version}"
        )
        # nginx needs as long to start as devpi needs to go on from here, and what it asks meanwhile waits.
        config.waitress_info["kwargs"].pop("unix_socket")
        config.waitress_info["kwargs"]["sockets"] = [front.inner]
        front.start()
    else:
        for listener in listeners:
            listener.close()
    counts = Statistics(private, max_bytes=size(options.log_max_size), max_files=options.log_max_files)
    plugins.register(counts, name=statistics.NAME)
    counts.start()
    if options.metrics:
        metrics.serve(options.metrics, lambda: counts.latest)
    gc.freeze()
    gc.enable()
    xom.main()
    counts.finish()


class _Masking(logging.Formatter):
    """Another formatter's line, without the user and password of any address in it: devpi logs whole indexes."""

    _CREDENTIALS = re.compile(r"://[^/\s@'\"]+@")

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return self._CREDENTIALS.sub("://****@", self._inner.format(record))


def _words(options: argparse.Namespace, serverdir: Path, private: Private, front: Front | None) -> list[str]:
    # Those who read slowly, and those who say nothing for a while, must not keep a crowd out.
    words = ["devpi-server", "--serverdir", str(serverdir), "--connection-limit", "500"]
    if front is None:
        words += ["--host", options.host, "--port", str(options.port)]
    else:
        # This host and port, which are devpi's defaults, mean none where there is a socket. That is ours alone, so
        # whoever speaks there is nginx.
        words += ["--host", "localhost", "--port", "3141", "--unix-socket", str(front.socket)]
        words += ["--trusted-proxy", "*", "--trusted-proxy-headers", "x-forwarded-for x-forwarded-proto"]
    words += ["--secretfile", str(private.secret), *_CHEAP, "--restrict-modify", "root"]
    words += ["--max-request-body-size", str(LARGEST_BODY)]
    words += ["--request-timeout", str(options.request_timeout), "--threads", str(options.threads)]
    words += [installed().expiry_option, str(options.mirror_cache_expiry)]
    if options.offline:
        words.append("--offline-mode")
    if options.outside_url:
        words += ["--outside-url", options.outside_url]
    return words


def _adopt(xom: Any, private: Private) -> None:
    """Data that was made without us: an empty root password is replaced before the port opens, another one is kept.

    The new password waits under another name until it is valid, so that a kill in between loses nothing.
    """
    candidate = secret_files.read_text(private.next_root_password)
    with xom.keyfs.read_transaction():
        root = xom.model.get_user("root")
        done = root is not None and candidate is not None and root.validate(candidate)
        empty = root is None or (not done and root.validate(""))
    if empty:
        candidate = secret_files.new_password(private.next_root_password)
        with xom.keyfs.write_transaction():
            root = xom.model.get_user("root")
            if root is None:  # a devpi-init that was killed
                xom.model.create_user("root", None, pwhash=passwords.hash_random(candidate))
            else:
                root.modify(pwhash=passwords.hash_random(candidate))
    if empty or done:
        private.next_root_password.replace(private.root_password)
        secret_files.sync(private.directory)
