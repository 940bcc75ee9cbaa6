"""The plugin devpi-ldap, with time limits and verified certificates. Installed only where that plugin is.

devpi-ldap asks the directory in the thread of the request, for every user but root, and with each request that has a
password. It has no time limit for a connection, and looks for a server that is up for as long as none is: a directory
that is down would take all threads of this server. Here :mod:`directory` bounds that. Users whose password is this
server's own don't need the directory.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

import ldap3
from devpi_ldap import main as plugin
from devpi_server import auth
from ldap3.core.exceptions import LDAPCommunicationError, LDAPServerPoolExhaustedError
from pluggy import HookimplMarker

from deployer.server.devpi.directory import Answers

hookimpl = HookimplMarker("devpiserver")

CONNECT = 3.0
"""Seconds to connect to one server of the directory."""
RECEIVE = 5
"""Seconds for one answer of the directory."""


def _silence(error: Exception) -> str:
    """Why the directory did not answer; empty for an error of another kind."""
    cause = error.__context__ if isinstance(error, auth.AuthException) and error.__context__ else error
    down = (LDAPCommunicationError, LDAPServerPoolExhaustedError, OSError)
    return f"{type(cause).__name__}: {cause}"[:200] if isinstance(cause, down) else ""


def _server(_ldap: Any, url: str, cfg: Mapping[str, Any] | None) -> Any:
    """A server of the directory, with a time limit; its schema is not read, which is two requests for each connection.

    Its certificate is verified unless the configuration says no.
    """
    tls = ldap3.Tls(**{"validate": ssl.CERT_REQUIRED, **(cfg or {})})
    return ldap3.Server(url, tls=tls, get_info=ldap3.NONE, connect_timeout=CONNECT)


def _server_pool(ldap: Any) -> Any:
    """The servers of the directory, each tried once."""
    pool = ldap3.ServerPool(active=1)
    for server in ldap.get("server_pool", [ldap]):
        pool.add(ldap._server(server["url"], server.get("tls")))
    return pool


def _is_own(userdict: Mapping[str, Any] | None, password: str) -> bool:
    """Whether it is the password that this server itself has of the user."""
    user = userdict or {}
    known = user.get("pwhash")
    return bool(known) and bool(auth.verify_and_update_password_hash(password, known, user.get("pwsalt"))[0])


def install() -> None:
    """Replace devpi-ldap's servers and questions."""
    ldap3.set_config_parameter("POOLING_LOOP_TIMEOUT", 0)  # seconds of sleep after each round
    plugin.DEFAULT_TIMEOUT = RECEIVE  # its key `timeout` is refused as unknown
    validate, asked, connect = plugin.LDAP.validate, plugin.devpiserver_auth_request, plugin.LDAP.connection

    def connection(ldap: Any, server: Any, userdn: str | None = None, password: str | None = None) -> Any:
        made = connect(ldap, server, userdn=userdn, password=password)
        made.empty_attributes = False  # else it takes "dn" for an attribute without a value
        return made

    def answered(ldap: Any, username: str, password: str) -> dict[str, Any]:
        answers: Answers = vars(ldap).setdefault("answers", Answers(lambda *words: validate(ldap, *words), _silence))
        return answers.of(username, password)

    @hookimpl(trylast=True)
    def devpiserver_auth_request(request: Any, userdict: Any, username: str, password: str) -> Any:
        if _is_own(userdict, password):
            return None  # devpi verifies it, and knows by whom
        return asked(request, userdict, username, password)

    plugin.LDAP._server = _server
    plugin.LDAP.server_pool = _server_pool
    plugin.LDAP.connection = connection
    plugin.LDAP.validate = answered
    plugin.devpiserver_auth_request = devpiserver_auth_request
