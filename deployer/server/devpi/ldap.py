"""Logins that an LDAP directory answers (the plugin devpi-ldap), bounded. Installed only where that plugin is.

devpi-ldap asks the directory in the thread of the request, for every user but root, and with each request that has a
password. It has no time limit for a connection, and looks for a server that is up for as long as none is. So a
directory that is down would take all threads of this server, and nobody could log in.

Here the directory is asked in a thread of its own, within DEADLINE seconds. Few requests wait for it; while it does not
answer, others are refused at once. What it answered is known for a while, by a keyed hash: a request with a password
causes several questions. Users whose password is this server's own don't need the directory.
"""

from __future__ import annotations

import hmac
import secrets
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import ldap3
from devpi_ldap import main as plugin
from devpi_server import auth
from devpi_server.log import threadlog
from ldap3.core.exceptions import LDAPCommunicationError, LDAPServerPoolExhaustedError
from pluggy import HookimplMarker
from pyramid.httpexceptions import HTTPServiceUnavailable

hookimpl = HookimplMarker("devpiserver")

CONNECT = 3.0
"""Seconds to connect to one server of the directory."""
RECEIVE = 5
"""Seconds for one answer of the directory."""
DEADLINE = 10.0
"""Seconds for one login: a search, a bind and a search of groups, with the look-up of the server's name."""
DOWN = 5.0
"""Seconds for which the directory is not asked again after it did not answer."""
ASKING = 8
"""Questions to the directory at one time."""
WAITING = 16
"""Requests that wait for the directory at one time."""
RIGHT, WRONG = 60.0, 10.0
"""Seconds for which an answer is known."""
REMEMBERED = 1000
"""Answers that are known."""
LONGEST = 1024
"""Characters of a name or a password that the directory is asked about."""


class NoAnswer(HTTPServiceUnavailable):  # type: ignore[misc]
    """The directory can't be asked now: 503."""

    def __init__(self, reason: str = "the LDAP directory does not answer: try again") -> None:
        super().__init__(reason, headers={"Retry-After": str(int(DOWN))})
        self.reason = reason


BUSY = "too many logins wait for the LDAP directory: try again"
FAILED = "the login by LDAP failed: the server's log says why"


@dataclass(frozen=True)
class _Known:
    answer: Mapping[str, Any]
    until: float


class Answers:
    """The answers of one directory. ``ask(username, password)``: devpi-ldap's, which may take long or raise."""

    def __init__(self, ask: Callable[[str, str], Mapping[str, Any]], *, deadline: float = DEADLINE) -> None:
        self._ask = ask
        self._deadline = deadline
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asking: dict[bytes, Future[Mapping[str, Any]]] = {}
        self._waiting = 0
        self._down_until = 0.0

    def of(self, username: str, password: str) -> dict[str, Any]:
        """The answer, as devpi-ldap's ``validate`` returns it. Raises NoAnswer."""
        if len(username) > LONGEST or len(password) > LONGEST:
            return {"status": "unknown"}
        digest = hmac.digest(self._key, f"{username}\0{password}".encode(errors="surrogatepass"), "sha256")
        with self._lock:
            known = self._known.get(digest)
            if known is not None and known.until > time.monotonic():
                self._known.move_to_end(digest)
                return dict(known.answer)
            future = self._asking.get(digest)
            is_down = time.monotonic() < self._down_until
            if is_down:
                raise NoAnswer
            if self._waiting >= WAITING or (future is None and len(self._asking) >= ASKING):
                raise NoAnswer(BUSY)
            self._waiting += 1
            if future is None:
                future = self._asking[digest] = Future()
                words = (future, digest, username, password)
                threading.Thread(target=self._find, args=words, name="directory", daemon=True).start()
        try:
            return dict(future.result(self._deadline))
        except NoAnswer as error:  # each request needs an instance of its own: it is the response
            raise NoAnswer(error.reason) from None
        except TimeoutError:
            self._failed(digest, future, f"no answer within {self._deadline:g} s")
            raise NoAnswer from None
        finally:
            with self._lock:
                self._waiting -= 1

    def _find(self, future: Future[Mapping[str, Any]], digest: bytes, username: str, password: str) -> None:
        try:
            answer = self._ask(username, password)
        except Exception as error:
            if reason := _silence(error):
                self._failed(digest, future, reason)
                future.set_exception(NoAnswer())
            else:
                threadlog.error("devpi-ldap failed: %s: %s", type(error).__name__, error)
                self._end(digest, future)
                future.set_exception(NoAnswer(FAILED))
            return
        right = answer.get("status") == "ok"
        with self._lock:
            self._known[digest] = _Known(answer, time.monotonic() + (RIGHT if right else WRONG))
            if len(self._known) > REMEMBERED:
                # Wrong ones go first: nobody who guesses makes the server forget who has logged in.
                wrong = (key for key, known in self._known.items() if known.answer.get("status") != "ok")
                del self._known[next(wrong, next(iter(self._known)))]
        self._end(digest, future)
        future.set_result(answer)

    def _end(self, digest: bytes, future: Future[Mapping[str, Any]]) -> None:
        with self._lock:
            if self._asking.get(digest) is future:
                del self._asking[digest]

    def _failed(self, digest: bytes, future: Future[Mapping[str, Any]], reason: str) -> None:
        """Note that the directory is down, and log it once for as long as it is."""
        self._end(digest, future)
        with self._lock:
            first = time.monotonic() >= self._down_until
            self._down_until = time.monotonic() + DOWN
        if first:
            threadlog.error("the LDAP directory does not answer: %s", reason)


def _silence(error: BaseException) -> str:
    """Why a directory did not answer; empty for an error of another kind, which an odd name or password may cause."""
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
        answers: Answers = vars(ldap).setdefault("answers", Answers(lambda *words: validate(ldap, *words)))
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
