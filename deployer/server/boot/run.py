"""Run devpi-server in this process: the first boot, the adoption of foreign data, and serving.

What takes long to import is imported once the port is open: who connects then waits, and is not refused.
"""

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
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from deployer import DISTRIBUTION
from deployer.protocol import ExitCode, PrivateFile, Refusal, Taken, parse_size
from deployer.server import cdn, hosts, outside, secret_files
from deployer.server.boot import copying, prepare, settings
from deployer.server.boot.handover import SIGNALS, Kept, run_again
from deployer.server.devpi import plugins as named
from deployer.server.devpi import relied_on
from deployer.server.devpi.installed import installed
from deployer.server.hosts import KnownHosts
from deployer.server.listening import complete, parse_address, places, port_of
from deployer.server.members import promotion
from deployer.server.members import role as roles
from deployer.server.members.role import Role, password_in, take_secret
from deployer.server.middleware.drain import Drain
from deployer.server.mirrors import rules
from deployer.server.mirrors.rules import MirrorRules
from deployer.server.nginx import certificate, statistics
from deployer.server.nginx.known import Known
from deployer.server.nginx.program import Nginx, NginxUnusable, log_line
from deployer.server.nginx.reverse_proxy import LARGEST_BODY, ReverseProxy, end, end_orphans
from deployer.server.nginx.statistics import Listener, Statistics
from deployer.server.outside import Outside
from deployer.server.secret_files import Private
from deployer.server.web import level
from deployer.server.web.level import Level

if TYPE_CHECKING:
    from pluggy import PluginManager

    from deployer.server.oidc.rules import Rules
    from deployer.server.upstream.credentials import Credentials

# The cost of deriving devpi's signing key from the secret. A high cost protects a weak secret. Ours has 384 random
# bits, and the default would take half a gigabyte and ten seconds at every start (see SECURITY.md).
_CHEAP = ("--argon2-memory-cost", "8", "--argon2-time-cost", "1", "--argon2-parallelism", "1")
# devpi would obey ~/.config/devpi-server and /etc/xdg/devpi-server, which can change its role and its addresses.
_NO_FILE = ("--configfile", os.devnull)
_WITHOUT_NGINX = "DEPLOYER_WITHOUT_NGINX"
"""The variable with the reason why the next start in this process is without nginx."""
_WRITE_SECONDS = 300
"""Seconds that a replica waits for its primary's answer to a write, which waits for replicas itself."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def serve(options: argparse.Namespace, listening: Sequence[socket.socket] = ()) -> int:
    """Prepare the server directory, then serve until a stop signal; the exit code.

    ``listening``: the public sockets, if they are open already.
    """
    os.umask(0o077)
    gc.disable()  # what is loaded now stays; collecting would take a tenth of the start
    stop = _Stop()
    for number in SIGNALS:
        signal.signal(number, stop)
    serverdir = Path(options.serverdir).absolute()
    try:
        role = Role.chosen(options)
        role.check(serverdir, promoted=promotion.is_ordered(serverdir))
    except Refusal as refusal:
        return _fail(refusal)
    order, kept = settings.ordered(Private.of(serverdir)), Kept.take()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        anew = kept is not None and kept.lock >= 0
        with (
            prepare.locked(serverdir, kept.lock if kept and anew else None) as private,
            contextlib.ExitStack() as ports,
        ):
            if not anew:
                end_orphans(private)
                settings.forget(private)
            found = complete(kept.sockets if kept else listening, places(options))
            listeners = [ports.enter_context(listener) for listener in found]
            stop.order = order
            stop.give = lambda: settings.give(private, listeners)
            private.lock.write_text(f"{os.getpid()}\n")  # from here on it takes orders
            copying.check_whole(private)
            prepare.repair(serverdir, private)
            code = _serve_on(options, serverdir, private, listeners, stop, kept, role)
            if code == 0 and stop.drain.done:
                _begin_anew(private, listeners, stop)
    except Refusal as refusal:
        return _fail(refusal)
    except KeyboardInterrupt:
        return 0
    if stop.proxy is not None and stop.proxy.failed and not stop.proxy.stopping:
        log_line(f"{stop.proxy.failed}: devpi serves without nginx from now on")
        os.environ[_WITHOUT_NGINX] = stop.proxy.failed
        run_again(sys.argv[1:])
    return code


def _begin_anew(private: Private, listeners: Sequence[socket.socket], stop: _Stop) -> None:
    """Begin anew in this process, which keeps the lock, the sockets and nginx."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    stop.leaving = True
    proxy = stop.proxy
    if proxy is None:
        Kept(lock=private.lock_held, listeners=_numbers(listeners)).begin_anew(sys.argv[1:])
    with proxy.kept() as running:
        if not proxy.stopping:
            log_line("beginning anew; nginx goes on")
            kept = Kept(
                lock=private.lock_held, listeners=_numbers(listeners), inner=proxy.inner.fileno(), nginx=running
            )
            kept.begin_anew(sys.argv[1:])


def _numbers(listeners: Sequence[socket.socket]) -> tuple[int, ...]:
    return tuple(listener.fileno() for listener in listeners)


class _Stop:
    """The signal handler: stop nginx first, so that it finishes the requests under way, and then devpi. SIGHUP ends
    devpi alone, and the server begins anew.

    The first process of a container has no default handlers: without this one SIGTERM would be ignored. A second signal
    must not interrupt the orderly stop. It is handled rather than ignored: Python prints an error for a signal that
    arrived just before SIG_IGN was set.
    """

    def __init__(self) -> None:
        self.proxy: ReverseProxy | None = None
        self.drain = Drain()
        self.order: Taken | None = None
        self.give: Callable[[], bool] = lambda: False
        self.leaving = False
        """The main thread blocks the signals, and is about to replace the program."""
        self._done = False

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        if self.leaving:
            # Another thread, which does not block it, got it. It waits in the main thread for the next program, which
            # needs the sockets that a stop would close (execve(2): pending signals are kept).
            signal.pthread_kill(threading.main_thread().ident or 0, number)
        elif number == settings.SIGNAL:
            if not self.give():
                self.drain.begin()
        elif self.proxy is not None and not self.proxy.gone.is_set():
            self.proxy.quit()
        elif not self._done:
            self._done = True
            raise KeyboardInterrupt


def _fail(refusal: Refusal) -> int:
    sys.stderr.write(refusal.text)
    sys.stderr.flush()
    return refusal.code


def _close_tls(options: argparse.Namespace, listeners: list[socket.socket]) -> None:
    """Close the sockets of HTTPS: without nginx nobody answers there, and clients get "connection refused" at once."""
    for listener in [one for one in listeners if port_of(one) == _tls_port(options)]:
        listener.close()
        listeners.remove(listener)


def _serve_on(
    options: argparse.Namespace,
    serverdir: Path,
    private: Private,
    listeners: list[socket.socket],
    stop: _Stop,
    kept: Kept | None,
    role: Role,
) -> int:
    _keep_temporary_files(private)
    try:
        if promotion.take(serverdir, role):
            log_line("this member is the primary from now on")
        if options.secret_file:
            take_secret(private, options.secret_file)
        secret_files.ensure_keys(private)
        first = prepare.needs_first_boot(serverdir, private)
        if first and options.only_marked:
            prepare.require_mark(serverdir, private)
        # Before devpi is imported: a hash may take 64 MiB for a moment.
        pwhash = "" if not first or role.is_replica else _first_password(serverdir, private, options.root_password_file)
        from devpi_server.main import Fatal

        from deployer.server.devpi import replacements
        from deployer.server.upstream.credentials import Credentials

        credentials = Credentials(private.credentials)

        named.find(options.plugins_in, options.plugin)
        web = options.web == level.DEVPI_WEB and relied_on.has_web()
        replacements.install(credentials.header, web=web, replica=role.is_replica)
        plugins = plugins_of(credentials, web=web)
        if first:
            _first_boot(serverdir, private, plugins, pwhash, role)
        if role.is_replica:
            # nginx must not send pages from before this start: the primary has gone on meanwhile.
            shutil.rmtree(private.directory / PrivateFile.PAGES, ignore_errors=True)
        stop.proxy = _proxy(options, serverdir, private, plugins, listeners, kept)
        if stop.proxy is None:
            _close_tls(options, listeners)
        secret_files.write_private(private.running, f"{options.host} {options.port}\n")
        try:
            _devpi(options, serverdir, private, plugins, listeners, stop, role)
        except Fatal as error:
            return _fail(Refusal(str(error), hint="read the log lines above", code=ExitCode.INTERNAL))
        finally:
            if stop.proxy is not None and not stop.drain.done:
                stop.proxy.clean()
        secret_files.remove(private.running)
    except OSError as error:
        if error.errno in _FULL:
            why = f"can't write {serverdir}: {error.strerror}"
            return _fail(Refusal(why, hint="free some space", code=ExitCode.INTERNAL))
        raise
    return 0


def _keep_temporary_files(private: Private) -> None:
    """Have temporary files beside the data: uploads are large, and a container's ``/tmp`` is in memory and small."""
    with contextlib.suppress(OSError):  # on a full disk the server can still be read
        shutil.rmtree(private.temporary, ignore_errors=True)
        private.temporary.mkdir(mode=0o700)
        tempfile.tempdir = str(private.temporary)


def _proxy(
    options: argparse.Namespace,
    serverdir: Path,
    private: Private,
    plugins: PluginManager,
    listeners: Sequence[socket.socket],
    kept: Kept | None,
) -> ReverseProxy | None:
    """nginx, if it is usable; otherwise the reason is logged and stored. Raises Refusal when nginx is required."""
    proxy: ReverseProxy | None = None
    failed = os.environ.pop(_WITHOUT_NGINX, "")
    why_not = failed or "it is switched off (server.front)"
    # A plugin that decides who may read packages has to be called for each file.
    files = not plugins.hook.devpiserver_stage_get_principals_for_pkg_read.get_hookimpls()
    try:
        if options.front != "python" and not failed:
            if options.tls:
                certificate.wait(private.tls)
            proxy = ReverseProxy(
                Nginx.find(Known.read(private.nginx_known)),
                serverdir,
                listeners,
                request_timeout=options.request_timeout,
                files=files,
                hosts=KnownHosts.of(options.allow_host, outside_url=options.outside_url),
                tls_port=_tls_port(options),
                outside=Outside.of(options.outside_url, options.trusted_proxy),
                caches=cdn.SharedCaches(options.cdn),
                inner=kept.inner if kept else -1,
                running=kept.nginx if kept else 0,
            )
    except NginxUnusable as problem:
        if options.tls:
            raise Refusal(
                f"no HTTPS: {problem}", hint="install nginx, or remove network.tls", code=ExitCode.CONFLICT
            ) from None
        if options.front == "nginx":
            raise Refusal(
                str(problem), hint="install nginx, or set server.front: auto", code=ExitCode.CONFLICT
            ) from None
        why_not = str(problem)
        log_line(f"devpi serves without nginx, and slower: {why_not}")
    if proxy is None and kept is not None and kept.nginx:
        end(kept.nginx)
    secret_files.write_private(private.front, (str(proxy.nginx) if proxy else f"python: {why_not}") + "\n")
    return proxy


def _tls_port(options: argparse.Namespace) -> int:
    """The port of HTTPS; 0 without."""
    return parse_address(options.tls)[1] if options.tls else 0


def plugins_of(credentials: Credentials, *, web: bool) -> PluginManager:
    from devpi_server.config import get_pluginmanager

    from deployer.server.plugin import NAME, Plugin

    manager = get_pluginmanager(load_entrypoints=False)
    if not web:
        # Blocked before entry points are loaded, so that it is not imported: it costs time and memory, and has the
        # server fetch the list of all names of each mirror.
        for entry in entry_points(group="devpi_server"):
            if entry.dist is not None and entry.dist.name == "devpi-web":
                manager.set_blocked(entry.name)
    manager.load_setuptools_entrypoints("devpi_server")
    manager.register(Plugin(credentials), name=NAME)
    if relied_on.has_tokens():
        from deployer.server.devpi import tokens

        manager.register(tokens, name="deployer-tokens")
    manager.check_pending()
    return manager


def _first_password(serverdir: Path, private: Private, file: str) -> str:
    """Remove the files of an interrupted first boot, and choose root's password, or take it from ``file``; its hash.

    Raises Refusal.
    """
    from deployer.server.devpi import passwords

    given = password_in(file) if file else None
    prepare.start_over(serverdir, private)
    known = secret_files.read_text(private.root_password)
    if known is None and given is not None:
        secret_files.write_private(private.root_password, f"{given}\n")
        known = given
    if known is None:
        return passwords.hash_random(secret_files.new_password(private.root_password))
    from devpi_server.auth import hash_password

    return str(hash_password(known))  # chosen by the operator


def _first_boot(serverdir: Path, private: Private, plugins: PluginManager, pwhash: str, role: Role) -> None:
    """Initialise devpi with a root password that is neither empty nor on a command line; a replica gets its users from
    its primary. Raises Refusal."""
    from devpi_server.init import init

    # A list in this process: other processes can't see it.
    words = ["devpi-init", *_NO_FILE, "--serverdir", str(serverdir), "--no-root-pypi", *role.words]
    if not role.is_replica:
        words += ["--root-passwd-hash", pwhash]
    if init(pluginmanager=plugins, argv=words):
        raise Refusal(f"can't initialise {serverdir}", hint="read the log lines above", code=ExitCode.INTERNAL)
    prepare.finish_first_boot(private)


def _devpi(
    options: argparse.Namespace,
    serverdir: Path,
    private: Private,
    plugins: PluginManager,
    listeners: Sequence[socket.socket],
    stop: _Stop,
    role: Role,
) -> None:
    from devpi_server.config import parseoptions
    from devpi_server.log import configure_logging
    from devpi_server.main import xom_from_config

    from deployer.server.devpi import push, quotas
    from deployer.server.inventory import budget
    from deployer.server.inventory import database as inventory
    from deployer.server.inventory.database import Inventory
    from deployer.server.inventory.watching import Uses
    from deployer.server.nginx import activity, history
    from deployer.server.nginx.activity import Recent
    from deployer.server.nginx.history import History
    from deployer.server.oidc import rules as oidc

    stock = Inventory(private.inventory)
    plugins.register(stock, name=inventory.NAME)
    plugins.register(cdn.SharedCaches(options.cdn), name=cdn.NAME)
    most = parse_size(options.cache_budget) if options.cache_budget else None
    plugins.register(budget.Budget(most), name=budget.NAME)
    proxy = stop.proxy
    plugins.register(oidc_rules(options.oidc), name=oidc.NAME)
    plugins.register(quotas.Quotas.of(options.quota), name=quotas.NAME)
    plugins.register(push.PushTargets.of(options.push_to), name=push.NAME)
    plugins.register(KnownHosts.of(options.allow_host, outside_url=options.outside_url), name=hosts.NAME)
    plugins.register(Outside.of(options.outside_url, options.trusted_proxy), name=outside.NAME)
    plugins.register(
        MirrorRules(not_found_expiry=options.not_found_expiry, keep_deleted=options.keep_deleted), name=rules.NAME
    )
    plugins.register(Level(options.web), name=level.NAME)
    plugins.register(role, name=roles.NAME)
    words = _arguments(options, serverdir, private, proxy, role)
    try:
        config = parseoptions(plugins, [*words, *named.words(options.option, plugins)])
    except SystemExit:
        why = "a plugin refuses its options"
        raise Refusal(why, hint="read the log lines above", code=ExitCode.PROFILE) from None
    configure_logging(config.args)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(_Masking(handler.formatter))
    xom = xom_from_config(config)
    if secret_files.read_text(private.root_password) is None and not role.is_replica:
        _adopt(xom, private, options.root_password_file)
    if proxy is not None:
        # devpi logs the addresses that it serves.
        config.waitress_info["addresses"].append(
            f"http://{options.host}:{options.port}, by nginx {proxy.nginx.version}"
        )
        # nginx starts while devpi does the rest; its first requests wait in the socket's backlog.
        config.waitress_info["kwargs"].pop("unix_socket")
        proxy.start()
    else:
        for name in ("host", "port"):
            config.waitress_info["kwargs"].pop(name, None)
    config.waitress_info["kwargs"]["sockets"] = [proxy.inner] if proxy else list(listeners)

    def serving() -> None:
        settings.keep(private, stop.order)
        if proxy is not None:
            proxy.reload()
            if options.tls:
                certificate.watch(private.tls, proxy.certificate, proxy.renew)

    stop.drain.install(serving)
    recent = Recent()
    plugins.register(recent, name=activity.NAME)
    past = History(private.history)
    plugins.register(past, name=history.NAME)
    counting: list[Listener] = [Uses(stock), past, recent]
    exporter = None
    if options.metrics:
        from deployer.server.nginx.metrics import Exporter

        exporter = Exporter(lambda: counts.latest)
        counting.append(exporter.latency)
        plugins.register(exporter, name=statistics.METRICS)
    counts = Statistics(
        private,
        max_bytes=parse_size(options.log_max_size),
        max_files=options.log_max_files,
        listeners=counting,
    )
    plugins.register(counts, name=statistics.NAME)
    counts.start()
    if exporter is not None:
        exporter.serve(options.metrics)
    gc.freeze()
    gc.enable()
    xom.main()
    counts.finish()
    with contextlib.suppress(OSError):
        past.write()
    stock.close()


def oidc_rules(texts: Sequence[str]) -> Rules:
    """Raises Refusal for rules that this server can't follow."""
    from deployer.server.oidc.rules import Rules

    missing = next((name for name in ("jwt", "cryptography", "devpi_tokens") if find_spec(name) is None), "")
    if texts and missing:
        hint = f"pip install '{DISTRIBUTION}[server]' where it runs"
        raise Refusal(f"server.oidc needs the module {missing}", hint=hint, code=ExitCode.REFUSED)
    try:
        return Rules.of(texts)
    except ValueError as error:
        raise Refusal(f"--oidc: {error}", hint="deployer up", code=ExitCode.USAGE) from None


class _Masking(logging.Formatter):
    """Removes user and password of all URLs from another formatter's lines: devpi logs whole indexes."""

    _CREDENTIALS = re.compile(r"://[^/\s@'\"]+@")

    def __init__(self, inner: logging.Formatter | None) -> None:
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        return self._CREDENTIALS.sub("://****@", self._inner.format(record))


def _arguments(
    options: argparse.Namespace, serverdir: Path, private: Private, proxy: ReverseProxy | None, role: Role
) -> list[str]:
    # Slow and idle clients must not use up the connections.
    words = ["devpi-server", *_NO_FILE, "--serverdir", str(serverdir), "--connection-limit", "500"]
    if proxy is None:
        words += ["--host", options.host, "--port", str(options.port)]
    else:
        # devpi's default host and port: it ignores them when there is a socket. Only nginx can connect to the socket.
        words += ["--host", "localhost", "--port", "3141", "--unix-socket", str(proxy.socket)]
        words += ["--trusted-proxy", "*", "--trusted-proxy-headers", "x-forwarded-for x-forwarded-proto"]
    words += ["--secretfile", str(private.secret), *_CHEAP, "--restrict-modify", "root"]
    words += ["--max-request-body-size", str(LARGEST_BODY)]
    words += ["--request-timeout", str(options.request_timeout), "--threads", str(options.threads)]
    words += [installed().expiry_option, str(options.mirror_cache_expiry), *installed().metadata_options]
    if options.web == level.DEVPI_WEB and relied_on.has_web():
        words.append("--keep-docs-packed")  # devpi-web extracts nothing then
    words += role.words
    if role.is_replica:
        # Files that came for a client are taken from there, instead of a second time from the primary.
        shutil.rmtree(private.arrived, ignore_errors=True)
        private.arrived.mkdir(mode=0o700)
        words += ["--replica-file-search-path", str(private.arrived), "--hard-links"]
        words += ["--proxy-timeout", str(_WRITE_SECONDS)]
        words += ["--file-replication-skip-indexes", ",".join(role.on_demand)]
    elif options.offline:  # a replica learns it of its primary; devpi's own mode would stop replication
        words.append("--offline-mode")
    if options.outside_url:
        words += ["--outside-url", Outside.of(options.outside_url).url]
    return words


def _adopt(xom: Any, private: Private, file: str) -> None:
    """Adopt foreign data: replace an empty root password before the port opens; keep any other one, unless the data was
    restored from a backup without it. Keep the password in ``file`` if it is root's: a replica became the primary.

    The new password has another file name until devpi has stored its hash, so a kill in between loses nothing.
    """
    from deployer.server.devpi import passwords

    candidate = secret_files.read_text(private.next_root_password)
    given = password_in(file) if file else ""
    with xom.keyfs.read_transaction():
        root = xom.model.get_user("root")
        done = root is not None and candidate is not None and root.validate(candidate)
        empty = root is None or (not done and (private.reset_root.exists() or root.validate("")))
        known = bool(given) and root is not None and not done and not empty and root.validate(given)
    if known:
        secret_files.write_private(private.root_password, f"{given}\n")
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
        secret_files.remove(private.reset_root)
