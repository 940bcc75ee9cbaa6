"""devpi-server, in this process: the first boot, the adoption of older data, and serving."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from deployer.server import prepare
from deployer.server.prepare import Private, Refusal

if TYPE_CHECKING:
    from pluggy import PluginManager

FAILED = 1
# What devpi-server spends on deriving its signing key from the secret. Stretching protects a weak secret; ours is 384
# random bits, for which it only costs half a gigabyte and ten seconds at every start (see SECURITY.md).
_CHEAP = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")


def serve(options: argparse.Namespace) -> int:
    """Prepare the server directory, then serve until a signal says stop; the exit code."""
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    serverdir = Path(options.serverdir).absolute()
    try:
        with prepare.locked(serverdir) as private:
            prepare.repair(serverdir, private)
            return _serve_on(options, serverdir, private)
    except Refusal as refusal:
        return _tell(refusal.cause, refusal.cure, refusal.code)
    except KeyboardInterrupt:
        return 0


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    # The first process of a container has no default handlers: without this one SIGTERM would be ignored. One signal is
    # enough; another must not cut the orderly stop short.
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


def _tell(cause: str, cure: str, code: int) -> int:
    sys.stderr.write(f"deployer: {cause}\ndeployer: {cure}\n")
    sys.stderr.flush()
    return code


def _serve_on(options: argparse.Namespace, serverdir: Path, private: Private) -> int:
    from devpi_server.main import Fatal

    prepare.ensure_secrets(private)
    plugins = _plugins(web=options.web)
    if prepare.needs_first_boot(serverdir, private):
        _first_boot(serverdir, private, plugins)
    prepare.write_private(private.running, "")
    try:
        _devpi(options, serverdir, private, plugins)
    except Fatal as error:
        return _tell(str(error), "see the lines above", FAILED)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _tell(f"port {options.port} of {options.host} is taken", "free it, or choose another", prepare.TAKEN)
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            return _tell(f"{serverdir} can't be written: {error.strerror}", "free some space", FAILED)
        raise
    private.running.unlink(missing_ok=True)
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


def _first_boot(serverdir: Path, private: Private, plugins: PluginManager) -> None:
    """Initialise, with a root password that is neither empty nor on any command line. Raises Refusal."""
    from devpi_server.auth import hash_password
    from devpi_server.init import init
    from devpi_server.main import DATABASE_VERSION

    prepare.start_over(serverdir, private)
    password = prepare.read_text(private.root_password) or prepare.new_password(private.root_password)
    # devpi-init leaves this file out when the directory is not empty, and ours is in it.
    prepare.write_private(serverdir / ".serverversion", DATABASE_VERSION)
    words = ["devpi-init", "--serverdir", str(serverdir), "--no-root-pypi"]
    words += ["--root-passwd-hash", hash_password(password)]  # a list in this process, not its command line
    if init(pluginmanager=plugins, argv=words):
        raise Refusal(f"{serverdir} can't be initialised", cure="see the lines above", code=FAILED)
    private.unfinished.unlink()


def _devpi(options: argparse.Namespace, serverdir: Path, private: Private, plugins: PluginManager) -> None:
    from devpi_server.config import parseoptions
    from devpi_server.log import configure_logging
    from devpi_server.main import xom_from_config

    config = parseoptions(plugins, _words(options, serverdir, private))
    configure_logging(config.args)
    xom = xom_from_config(config)
    if prepare.read_text(private.root_password) is None:
        _adopt(xom, private)
    xom.main()


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
    candidate = prepare.read_text(private.next_root_password)
    with xom.keyfs.read_transaction():
        root = xom.model.get_user("root")
        done = root is not None and candidate is not None and root.validate(candidate)
        empty = root is not None and not done and root.validate("")
    if empty:
        candidate = prepare.new_password(private.next_root_password)
        with xom.keyfs.write_transaction():
            xom.model.get_user("root").modify(password=candidate)
    if empty or done:
        private.next_root_password.replace(private.root_password)
