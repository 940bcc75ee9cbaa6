"""Logins of clients for a protected index: made on the server's own host, tried, and written into ``~/.netrc``."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from typing import TYPE_CHECKING

from deployer.clients import netrc
from deployer.clients.client import Account, ClientSettings
from deployer.clients.configure import ClientChange, configure, preview, undo
from deployer.clients.netrc import Login, Netrc
from deployer.errors import ClientFileError, DeployerError, ServerRefused, UsageError
from deployer.secrets import Secret

if TYPE_CHECKING:
    from deployer.deployment.session import Session
    from deployer.ui.output import UI

LIFETIME = 365 * 86_400
"""Seconds of a token that is made for this host; `up` makes another one when it is refused."""
READ = "pkg_read"
_REFUSED = (401, 403)


def status(url: str, login: Login | None = None) -> int:
    """The HTTP status with which the server of a simple URL answers for its index, to ``login`` or to anybody.

    Raises UsageError for another address, NotReadyError when nothing answers.
    """
    from deployer.devpi.connection import Connection

    base, index = split(url)
    pair = "" if login is None else f"{login.user}:{login.secret.reveal()}"
    headers = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"} if pair else {}
    server = Connection(base, timeout=10.0)
    try:
        return server.request("GET", f"/{index}", params={"no_projects": ""}, headers=headers).status
    finally:
        server.close()


def split(url: str) -> tuple[str, str]:
    """The address of the server, and the index. Raises UsageError."""
    base, _, rest = url.rstrip("/").rpartition("/+simple")
    server, _, index = base.rpartition("/")
    server, _, user = server.rpartition("/")
    if rest or not (server and user and index) or "//" not in server:
        raise UsageError(f"{url} is no simple URL", hint="give an address such as https://HOST/USER/NAME/+simple/")
    return server, f"{user}/{index}"


def check(url: str, login: Login) -> None:
    """Raise ServerRefused unless the login may read the index at ``url``."""
    found = status(url, login)
    if found in _REFUSED:
        why = "does not know this user and password" if found == 401 else f"does not let {login.user} read it"
        raise ServerRefused(
            f"the server of {url} {why} (HTTP {found})", hint="give another one, or ask who owns the index"
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
    from deployer.deployment.session import connect

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


def require(url: str, account: Account) -> None:
    """Raise ClientFileError if clients have no login for a protected index.

    Asks nobody but the server, so a login that clients find elsewhere, such as in a keyring, is not known here.
    """
    known = netrc.known(account, url)
    if status(url, known) == 401:
        raise ClientFileError(f"{url} can be read with a login only, and {_file(account)} has none", hint=Netrc.command)


def _file(account: Account) -> str:
    return str(Netrc().detect("user", account))
