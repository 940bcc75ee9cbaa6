"""A thin client of devpi's HTTP API that does not trust the answers.

Importing this costs as much as httpx does. API: https://devpi.net/docs/ and the server's own views.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import httpx

from deployer.devpi.answers import JsonObject, Reply, line, text
from deployer.devpi.connection import MAX_LIST, MAX_TOPOLOGY, SLOW, Connection
from deployer.devpi.fields import IndexCodec, Value, codec_of
from deployer.devpi.identity import Identity
from deployer.devpi.names import index_name, user_name
from deployer.devpi.topology import Node, Topology
from deployer.errors import ConflictError, ServerRefused
from deployer.protocol import (
    ACCEPT_ROUTE,
    IDENTITY_ROUTE,
    NONCE_HEADER,
    OFFLINE_ROUTE,
    OPEN_ROUTE,
    REFRESH_ROUTE,
    Accepted,
    AcceptRequest,
    ActivityRequest,
    CachedRequest,
    InventoryRequest,
    OfflineRequest,
    OpenRequest,
    Outcome,
    PruneRequest,
    RefreshRequest,
    TakenOver,
    client_proof,
    outcomes,
)
from deployer.secrets import Secret
from deployer.typed import built

NO_REFRESH = "wait until its pages expire: server.mirror_cache_expiry of the profile"
"""The hint for a server without the endpoint of a refresh."""
NO_ACCEPT = "deployer up"
"""The hint for a server that keeps no first owners."""
ORDER_TRIES = 3
"""Challenges that an order is tried with: another order may have used one up."""
ORDER_SECONDS = 400.0
"""Timeout in seconds of an order: nginx waits longer than that for devpi."""
ORDER_BYTES = 8000
"""Bytes of names in one order: nginx asks for a user before it reads a body of 10,000."""

Order = (
    OfflineRequest | RefreshRequest | CachedRequest | InventoryRequest | PruneRequest | OpenRequest | ActivityRequest
)


@dataclass(frozen=True, kw_only=True)
class IndexStatus:
    """An index that is served, and its type on the server."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class _Login:
    user: str
    password: Secret
    token: Secret

    @property
    def headers(self) -> dict[str, str]:
        pair = f"{self.user}:{self.token.reveal()}"
        return {"X-Devpi-Auth": b64encode(pair.encode()).decode()}


class DevpiApi:
    """devpi's API at ``base_url``. Proxies of the environment are never used, redirects never followed.

    ``timeout``: seconds for one request as a whole. Methods raise NotReadyError when nothing answers
    (NotDevpiError when something else does), ServerRefused with the server's own message for a 4xx or 5xx.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        codec: IndexCodec | None = None,
    ) -> None:
        self._http = Connection(base_url, timeout=timeout, transport=transport)
        self._codec = codec
        self._login: _Login | None = None
        self._uuid: str | None = None
        self._server_version: str | None = None

    @property
    def url(self) -> str:
        return self._http.url

    @property
    def timeout(self) -> float:
        """Seconds for one request as a whole."""
        return self._http.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._http.timeout = seconds

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # Identity

    def identity(self, nonce: str | None = None) -> Identity:
        """Ask the server for its identity; with ``nonce`` (hex), with the proof that it runs on our data directory.

        One request to a server with deployer's plugin, two to any other devpi.
        """
        headers = {} if nonce is None else {NONCE_HEADER: nonce}
        reply = self._http.request("GET", IDENTITY_ROUTE, headers=headers)
        if reply.status == 404:
            status = self._http.request("GET", "/+status")
            identity = Identity.of_any(self._http.result(status, "tell its status", kind="status"))
        else:
            identity = Identity.of_ours(self._http.object(self._http.accepted(reply, "tell who it is")))
        if not identity.told:
            self._http.not_devpi("it does not tell its uuid")
        self._uuid = self._uuid or identity.uuid
        self._server_version = identity.server_version
        return identity

    def switch_offline(self, *, offline: bool, proof_key: str) -> None:
        """Switch the requests to upstreams off or on. ``proof_key``: hex, of the data directory.

        Raises ServerRefused also for a server without deployer's plugin.
        """
        otherwise = "set server.offline in the profile, then: deployer up"
        self._order(OFFLINE_ROUTE, OfflineRequest(offline=offline), "switch", proof_key=proof_key, otherwise=otherwise)

    def one_time_login(self, *, proof_key: str) -> str:
        """A code that logs a browser in as root, once and within a minute. Raises as :meth:`switch_offline`."""
        otherwise = "set server.web: manage in the profile, then: deployer up"
        reply = self._order(OPEN_ROUTE, OpenRequest(), "open its pages", proof_key=proof_key, otherwise=otherwise)
        code = text(self._http.object(reply).get("code"))
        if not code:
            self._http.not_devpi("no code of a one-time login")
        return code

    def refresh(self, index: str, projects: tuple[str, ...] | None, *, proof_key: str) -> dict[str, Outcome]:
        """Have the server ask the upstream of the mirror ``index`` anew; None: for all projects that it knows.

        ``projects``: normalised. Returns the outcome of each project. Raises as :meth:`switch_offline`.
        """
        found: dict[str, Outcome] = {}
        orders: list[tuple[str, ...] | None] = [None] if projects is None else list(_parts(projects))
        while orders:
            wanted = RefreshRequest(index=index_name(index), projects=orders.pop(0))
            reply = self._order(REFRESH_ROUTE, wanted, f"refresh {index}", proof_key=proof_key, otherwise=NO_REFRESH)
            told = outcomes(self._http.object(reply))
            left = tuple(name for name, outcome in told.items() if outcome is Outcome.LEFT)
            if left and len(left) == len(told):
                self._http.not_devpi("a refresh that asks for nothing")
            found |= {name: outcome for name, outcome in told.items() if outcome is not Outcome.LEFT}
            orders += _parts(left)
        return found

    def accept(self, index: str, projects: tuple[str, ...] | None, *, proof_key: str) -> list[TakenOver]:
        """Have an ordered index take what its bases serve now; None: of all projects.

        ``projects``: normalised. Returns what another base serves than at first. Raises as :meth:`switch_offline`.
        """
        found: list[TakenOver] = []
        orders: list[tuple[str, ...] | None] = [None] if projects is None else list(_parts(projects))
        for order in orders:
            wanted = AcceptRequest(index=index_name(index), projects=order)
            reply = self._order(ACCEPT_ROUTE, wanted, f"accept {index}", proof_key=proof_key, otherwise=NO_ACCEPT)
            try:
                found += built(Accepted, self._http.object(reply))["accepted"]
            except ValueError:
                self._http.not_devpi("an acceptance of something else")
        return found

    def _order(
        self,
        route: str,
        wanted: Order,
        doing: str,
        *,
        proof_key: str,
        otherwise: str,
        limit: int = MAX_LIST,
    ) -> Reply:
        """Send an order with the proof for the server's challenge.

        ``otherwise``: the hint for a server that takes no orders. ``limit``: bytes of the answer.
        """

        def send(proof: str) -> Reply:
            body = replace(wanted, proof=proof).json
            return self._http.request("POST", route, body=body, limit=limit, timeout=ORDER_SECONDS)

        return self._proved(send, wanted.order, doing, proof_key=proof_key, otherwise=otherwise)

    def _proved(self, send: Callable[[str], Reply], order: str, doing: str, *, proof_key: str, otherwise: str) -> Reply:
        """Send what needs a proof of ``order``; another order may use up the server's challenge first."""
        for _ in range(ORDER_TRIES):
            identity = self.identity()
            if not identity.challenge:
                raise ServerRefused(f"{self.url} can't {doing}: it is not deployer's own server", hint=otherwise)
            reply = send(client_proof(proof_key, challenge=identity.challenge, uuid=identity.uuid, order=order))
            if reply.status != 403:
                break
        return self._http.accepted(reply, doing)

    @property
    def codec(self) -> IndexCodec:
        """The spelling of index fields of this server, by its version."""
        if self._codec is None:
            if self._server_version is None:
                self.identity()
            self._codec = codec_of(self._server_version or "")
        if self._codec is None:
            raise ServerRefused(
                f"{self.url} is devpi-server {self._server_version or 'of an unknown version'}: its users and indexes "
                "can be read but not changed",
                hint="run devpi-server 6.20 or newer",
            )
        return self._codec

    def login(self, user: str, password: Secret) -> None:
        """Log in for the calls that follow; the token stays in memory, and is renewed once when it has expired.

        Call :meth:`identity` first: a password must not be sent to another server.
        """
        body: JsonObject = {"user": user_name(user), "password": password.reveal()}
        reply = self._http.request("POST", "/+login", body=body)
        if reply.status in (401, 403):
            raise ServerRefused(
                f"cannot log in as {user} at {self.url}: the stored password is not the server's",
                hint=f"give the right one: deployer secret set {user}",
            )
        result = self._http.result(reply, f"log in {user}", kind="proxyauth")
        self._remember(_Login(user=user, password=password, token=self._token(result)))

    def use(self, user: str, password: Secret) -> None:
        """Send the password with each write instead of logging in, which is cheaper for a single write.

        After a refused write, a login tells a wrong password from a missing permission.
        """
        self._remember(_Login(user=user_name(user), password=password, token=password))

    def read_as(self, user: str, password: Secret | None) -> None:
        """Read as this user, if its password is known, what not everybody may read. Writes need :meth:`login`.

        Call :meth:`identity` first, as before :meth:`login`.
        """
        if password is not None:
            self._http.reader = _Login(user=user_name(user), password=password, token=password).headers

    def _remember(self, login: _Login) -> None:
        self._login = login
        self._http.reader = login.headers
        self._http.who = login.user

    @property
    def authenticated(self) -> bool:
        """Whether writes are authenticated."""
        return self._login is not None

    # Reading

    def topology(self) -> Topology:
        """All users and the configuration of all indexes, in one request that never lists projects."""
        reply = self._list()
        raw = self._http.result(reply, "list its users and indexes", kind="list:userconfig")
        try:
            return Topology.parse(raw)
        except ValueError as error:
            self._http.not_devpi(line(str(error)))

    def _list(self) -> Reply:
        # A server shows nobody what not everybody may read, and says nothing of it.
        return self._http.request("GET", "/", headers=self._http.reader, limit=MAX_TOPOLOGY)

    def index_settings(self) -> dict[str, JsonObject]:
        """The settings of all indexes exactly as the server has them, by ``user/name``."""
        reply = self._list()
        users = self._http.result(reply, "list its users and indexes", kind="list:userconfig")
        return {
            f"{user}/{name}": config
            for user, found in users.items()
            for name, config in (found.get("indexes") or {} if isinstance(found, dict) else {}).items()
            if isinstance(config, dict)
        }

    def simple_status(self, index: str) -> IndexStatus:
        """Whether ``index`` is served.

        Asks for the index's own configuration: that opens the index, its type's code and its plugin, as the first
        step of every simple page does. No simple page is asked for: the one of all projects makes a mirror fetch
        every name of its upstream, and one of an unknown project is an upstream request, too.
        """
        reply = self._http.request("GET", f"/{index_name(index)}", params={"no_projects": ""})
        result = self._http.result(reply, f"open index {index}", kind="indexconfig")
        return IndexStatus(name=index, type=text(result.get("type")))

    def projects(self, index: str) -> tuple[str, ...]:
        """The names of all projects on ``index`` itself.

        Never ask it of a mirror that has a list of projects (``mirror_no_project_list`` is false): that makes the
        server fetch every name of its upstream.
        """
        reply = self._http.request("GET", f"/{index_name(index)}", limit=MAX_LIST, timeout=SLOW)
        answer = self._http.result(reply, f"open index {index}", kind="indexconfig")
        names = answer.get("projects")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._http.not_devpi(f"no list of projects of {index}")
        return tuple(names)

    def is_empty(self, index: str, node: Node) -> bool:
        """Whether ``index`` (its configuration is ``node``) is known to be empty."""
        listed = node.type == "mirror" and node.fields.get("mirror_no_project_list") is not True
        return not listed and not self.projects(index)

    # Writing

    def put_user(self, name: str, fields: Mapping[str, Value], *, password: Secret) -> None:
        """Create a user."""
        self._write("PUT", f"/{user_name(name)}", {**fields, "password": password.reveal()}, f"create user {name}")

    def patch_user(self, name: str, fields: Mapping[str, Value]) -> None:
        """Change only these fields of a user."""
        self._write("PATCH", f"/{user_name(name)}", dict(fields), f"modify user {name}")

    def set_password(self, name: str, password: Secret) -> None:
        """Change a password; if the user is logged in, use the new one from now on.

        Tokens that others hold stay valid: devpi only checks their signature and age.
        """
        body: JsonObject = {"password": password.reveal()}
        result = self._write("PATCH", f"/{user_name(name)}", body, f"set the password of {name}")
        if self._login is not None and self._login.user == name:
            self._remember(_Login(user=name, password=password, token=self._token(result)))

    def put_index(self, name: str, fields: Mapping[str, Value]) -> None:
        """Create an index; ``fields`` as in devpi-server 6, for any server."""
        self._write("PUT", f"/{index_name(name)}", self.codec.encode(fields), f"create index {name}")

    def patch_index(self, name: str, fields: Mapping[str, Value]) -> None:
        """Change these fields of an index and no others. Cached files of a mirror stay, also under a new address."""
        self._write("PATCH", f"/{index_name(name)}", self.codec.encode(fields), f"modify index {name}")

    def delete_user(self, name: str) -> None:
        """Delete a user and all indexes of it. devpi refuses when one of them is not volatile."""
        self._write("DELETE", f"/{user_name(name)}", None, f"delete user {name}")

    def delete_index(self, name: str) -> None:
        """Delete an index and every file on it. devpi refuses when it is not volatile."""
        self._write("DELETE", f"/{index_name(name)}", None, f"delete index {name}")

    # Requests

    def _write(self, method: str, path: str, body: JsonObject | None, doing: str) -> JsonObject:
        reply = self._http.request(method, path, body=body, headers=self._auth())
        if reply.status in (401, 403) and self._login is not None and not self._token_is_valid():
            self._renew(self._login)
            reply = self._http.request(method, path, body=body, headers=self._auth())
        # Some writes are answered without a result; only a new token is used.
        result = self._http.object(self._http.accepted(reply, doing)).get("result")
        return result if isinstance(result, dict) else {}

    def _auth(self) -> dict[str, str]:
        return {} if self._login is None else self._login.headers

    def _token_is_valid(self) -> bool:
        # devpi treats an expired token as no token at all and answers 403, as for a user without the right.
        reply = self._http.request("GET", "/+api", headers=self._auth())
        result = self._http.result(reply, "tell whether the login is valid", kind="apiconfig")
        status = result.get("authstatus")
        return isinstance(status, list) and status[:1] == ["ok"]

    def _renew(self, login: _Login) -> None:
        known, answers = self._uuid, self.identity().uuid
        if known is not None and answers != known:
            raise ConflictError(
                f"another devpi answers at {self.url} since this run began (uuid {answers}, before {known})",
                hint="see what runs there: deployer status",
            )
        self.login(login.user, login.password)

    def _token(self, result: JsonObject) -> Secret:
        token = text(result.get("password"))
        if not token:
            self._http.not_devpi("a login without a token")
        return Secret(token)


def _parts(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The names in portions that fit into one order each."""
    part: list[str] = []
    size = 0
    for name in names:
        size += len(name) + len('"", ')
        if part and size > ORDER_BYTES:
            yield tuple(part)
            part, size = [], len(name) + len('"", ')
        part.append(name)
    if part:
        yield tuple(part)
