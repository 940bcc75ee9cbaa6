"""devpi-server, in this process: the first boot, the adoption of older data, and serving."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import re
import signal
import socket
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from deployer.server import moving, passwords, prepare, secretfiles
from deployer.server.refusal import TAKEN, Refusal
from deployer.server.secretfiles import Private

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
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    serverdir = Path(options.serverdir).absolute()
    try:
        with prepare.locked(serverdir) as private:
            check_port(options.host, options.port)
            moving.check_whole(private)
            prepare.repair(serverdir, private)
            return _serve_on(options, serverdir, private)
    except Refusal as refusal:
        return _tell(refusal.cause, refusal.cure, refusal.code)
    except KeyboardInterrupt:
        return 0


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    # The first process of a container has no default handlers: without this one SIGTERM would be ignored. One signal is
    # enough; another must not cut the orderly stop short. It is heard and not ignored: of a signal that came before it
    # was to be ignored, Python prints that it lost a race.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda _number, _frame: None)
    raise KeyboardInterrupt


def _tell(cause: str, cure: str, code: int) -> int:
    sys.stderr.write(f"deployer: {cause}\ndeployer: {cure}\n")
    sys.stderr.flush()
    return code


def check_port(host: str, port: int) -> None:
    """Try the port before anything else is done: devpi would tell by a traceback, a second later. Raises Refusal."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise Refusal(f"{host} is no address: {error.strerror}", cure="choose another", code=TAKEN) from None
    for family, kind, protocol, _, address in found:
        with contextlib.closing(socket.socket(family, kind, protocol)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listener.bind(address)
            except OSError as error:
                why = "is taken" if error.errno == errno.EADDRINUSE else f"can't be used: {error.strerror}"
                raise Refusal(f"port {port} of {host} {why}", cure="free it, or choose another", code=TAKEN) from None


def _serve_on(options: argparse.Namespace, serverdir: Path, private: Private) -> int:
    try:
        secretfiles.ensure_keys(private)
        first = prepare.needs_first_boot(serverdir, private)
        # Before devpi is loaded: hashing needs 64 MiB for a moment.
        pwhash = _first_password(serverdir, private) if first else ""
        from devpi_server.main import Fatal

        plugins = _plugins(web=options.web)
        if first:
            _first_boot(serverdir, private, plugins, pwhash)
        secretfiles.write_private(private.running, f"{options.host} {options.port}\n")
        try:
            _devpi(options, serverdir, private, plugins)
        except Fatal as error:
            return _tell(str(error), "see the lines above", FAILED)
        secretfiles.remove(private.running)
    except OSError as error:
        if error.errno in _FULL:
            return _tell(f"{serverdir} can't be written: {error.strerror}", "free some space", FAILED)
        raise
    return 0


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
    manager.check_pending()
    return manager


def _first_password(serverdir: Path, private: Private) -> str:
    """Clear what an earlier first boot may have begun, and choose root's password; its hash."""
    from devpi_server.auth import hash_password

    prepare.start_over(serverdir, private)
    known = secretfiles.read_text(private.root_password)
    return str(hash_password(known or secretfiles.new_password(private.root_password)))


def _first_boot(serverdir: Path, private: Private, plugins: PluginManager, pwhash: str) -> None:
    """Initialise, with a root password that is neither empty nor on any command line. Raises Refusal."""
    from devpi_server.init import init

    # A list in this process, not its command line.
    words = ["devpi-init", "--serverdir", str(serverdir), "--no-root-pypi", "--root-passwd-hash", pwhash]
    if init(pluginmanager=plugins, argv=words):
        raise Refusal(f"{serverdir} can't be initialised", cure="see the lines above", code=FAILED)
    prepare.finish_first_boot(private)


def _devpi(options: argparse.Namespace, serverdir: Path, private: Private, plugins: PluginManager) -> None:
    from devpi_server.config import parseoptions
    from devpi_server.log import configure_logging
    from devpi_server.main import xom_from_config

    passwords.serialise()
    config = parseoptions(plugins, _words(options, serverdir, private))
    configure_logging(config.args)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masking(handler.formatter))
    xom = xom_from_config(config)
    if secretfiles.read_text(private.root_password) is None:
        _adopt(xom, private)
    xom.main()


class _Masking(logging.Formatter):
    """Another formatter's line, without the user and password of any address in it: devpi logs whole indexes."""

    _CREDENTIALS = re.compile(r"://[^/\s@'\"]+@")

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return self._CREDENTIALS.sub("://****@", self._inner.format(record))


def _words(options: argparse.Namespace, serverdir: Path, private: Private) -> list[str]:
    words = ["devpi-server", "--serverdir", str(serverdir), "--host", options.host, "--port", str(options.port)]
    words += ["--secretfile", str(private.secret), *_CHEAP, "--restrict-modify", "root"]
    words += ["--request-timeout", str(options.request_timeout), "--threads", str(options.threads)]
    words += ["--mirror-cache-expiry", str(options.mirror_cache_expiry)]
    if options.offline:
        words.append("--offline-mode")
    if options.outside_url:
        words += ["--outside-url", options.outside_url]
    return words


def _adopt(xom: Any, private: Private) -> None:
    """Data that was made without us: an empty root password is replaced before the port opens, another one is kept.

    The new password waits under another name until it is valid, so that a kill in between loses nothing.
    """
    candidate = secretfiles.read_text(private.next_root_password)
    with xom.keyfs.read_transaction():
        root = xom.model.get_user("root")
        done = root is not None and candidate is not None and root.validate(candidate)
        empty = root is None or (not done and root.validate(""))
    if empty:
        candidate = secretfiles.new_password(private.next_root_password)
        with xom.keyfs.write_transaction():
            root = xom.model.get_user("root")
            if root is None:  # a devpi-init that was killed
                xom.model.create_user("root", candidate)
            else:
                root.modify(password=candidate)
    if empty or done:
        private.next_root_password.replace(private.root_password)
        secretfiles.sync(private.directory)
