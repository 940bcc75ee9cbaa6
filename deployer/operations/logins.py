"""Logins of clients for a protected index: made on the server's own host, tried, and written into ``~/.netrc``."""

from __future__ import annotations

import os
import ssl
import time
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from deployer.clients import netrc
from deployer.clients.client import Account, ClientSettings
from deployer.clients.configure import ClientChange, configure, preview, undo
from deployer.clients.netrc import Login, Netrc
from deployer.deployment.record import read_applied
from deployer.errors import DeployerError, NotReadyError, Refused, ServerRefused, UsageError
from deployer.secrets import Secret

if TYPE_CHECKING:
    from deployer.deployment.session import Session
    from deployer.ui.output import UI

LIFETIME = 365 * 86_400
"""Seconds of a token that is made for this host; `up` makes another one when it is refused."""
READ = "pkg_read"
SECONDS = 10.0
"""Timeout of one step of a request."""
_REFUSED = (401, 403)


def status(url: str, login: Login | None = None, *, ca: str = "") -> int:
    """The HTTP status with which the server of a simple URL answers for its index, to ``login`` or to anybody.

    ``ca``: the file of its CA; empty where the system's CAs do.

    Raises UsageError for another address, NotReadyError when nothing answers.
    """
    base, index = split(url)
    parts = urlsplit(base)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=ca or None)
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=SECONDS, context=context)
    else:
        connection = HTTPConnection(host, port, timeout=SECONDS)
    headers = {"Accept": "application/json", **({} if login is None else login.headers)}
    try:
        connection.request("GET", f"{parts.path}/{index}?no_projects=", headers=headers)
        return connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise NotReadyError(f"{base} does not answer: {error}", hint="deployer status") from None
    finally:
        connection.close()


def split(url: str) -> tuple[str, str]:
    """The address of the server, and the index. Raises UsageError."""
    base, _, rest = url.rstrip("/").rpartition("/+simple")
    server, _, index = base.rpartition("/")
    server, _, user = server.rpartition("/")
    if rest or not (server and user and index) or "//" not in server:
        raise UsageError(f"{url} is no simple URL", hint="give an address such as https://HOST/USER/NAME/+simple/")
    return server, f"{user}/{index}"


def check(url: str, login: Login, *, ca: str = "") -> None:
    """Raise ServerRefused unless the login may read the index at ``url``."""
    found = status(url, login, ca=ca)
    if found in _REFUSED:
        raise ServerRefused(
            f"the server does not let {login.user} read {url} with this password or token (HTTP {found})",
            hint="give another one, or ask who owns the index",
        )


def write(url: str, login: Login, account: Account) -> ClientChange:
    """Write a login for the host of ``url``. Raises ClientFileError, Locked."""
    return configure(Netrc(login), ClientSettings(index_url=url, timeout=1), account=account)


def forget(account: Account) -> ClientChange:
    """Restore the file as it was before deployer. Raises ClientFileError, Locked."""
    return undo(Netrc(), account=account)


def made(session: Session, url: str) -> Login:
    """A read token of root for the index at ``url`` and its bases. Raises ServerRefused."""
    from deployer.plan.order import below

    index = split(url)[1]
    api = session.login()
    names = below(api.topology().indexes, index) or (index,)
    token = api.new_token(session.user, allowed=[READ], expires=int(time.time()) + LIFETIME, indexes=names)
    return Login(session.user, token)


def ensure(name: str, url: str, ui: UI) -> None:
    """Have the clients of this user read a protected index of the deployment ``name``; what fails is a warning."""
    from deployer.operations.cluster.session import connect

    account = Account.of(os.environ)
    try:
        if status(url) not in _REFUSED:
            return
        known = netrc.known(account, url)
        if known is not None and status(url, known) not in _REFUSED:
            ui.step("login", f"{Netrc().detect('user', account)}: unchanged")
            return
        preview(Netrc(Login("root", Secret("none"))), ClientSettings(index_url=url, timeout=1), account=account)
        with connect(name) as session:
            change = write(url, made(session, url), account)
        ui.step("login", f"{change.path}: a read token for {netrc.host_of(url)} (undo: {Netrc.undo})")
    except DeployerError as error:
        ui.warn(f"clients have no login for {url}: {error.message}; fix: {error.hint}")


def missing(name: str, url: str) -> str:
    """Why clients can't read the index at ``url`` of the deployment ``name``, with the cure; empty if they can.

    Asks the server only where its profile names readers.
    """
    if not _has_readers(name):
        return ""
    account = Account.of(os.environ)
    try:
        if status(url) != 401 or status(url, netrc.known(account, url)) != 401:
            return ""
    except DeployerError:
        return ""
    path = Netrc().detect("user", account)
    return f"{url} can be read with a login only, and {path} has none of deployer's; fix: {Netrc.command}"


def of_build(name: str, url: str) -> Login | None:
    """The login with which the steps of a build read the index at ``url``; None where everybody reads it.

    Raises Refused where clients of this user have no login.
    """
    if not _has_readers(name) or status(url) not in _REFUSED:
        return None
    account = Account.of(os.environ)
    known = netrc.known(account, url)
    if known is None or status(url, known) in _REFUSED:
        raise Refused(f"{url} can be read with a login only, and there is none for the build", hint=Netrc.command)
    return known


def _has_readers(name: str) -> bool:
    """Whether the profile of the last ``up`` names readers of any index: servers are not asked without that."""
    applied = read_applied(name)
    indexes = applied.profile.get("indexes", {}) if applied is not None else {}
    return any(isinstance(index, dict) and index.get("read") is not None for index in indexes.values())
