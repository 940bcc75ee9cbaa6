"""A thin client of devpi's HTTP API that trusts nothing about the program that answers.

Importing this costs as much as httpx does. API: https://devpi.net/docs/ and the server's own views.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from deployer.devpi.fields import Dialect, Value, dialect_of
from deployer.devpi.topology import Node, Topology
from deployer.devpi.transport import Deadline, DeadlineTransport
from deployer.errors import ConflictError, NotReadyError, ProfileError, ServerRefused
from deployer.secrets import Secret, mask

MAX_BODY = 1024 * 1024
"""Bytes of an answer that are read at most, where what is asked for is a few kilobytes."""
MAX_TOPOLOGY = 8 * MAX_BODY
"""Bytes of the list of all users and indexes that are read at most: enough for some twenty thousand."""
MAX_LIST = 64 * MAX_BODY
"""Bytes of a list of projects or of files that are read at most."""
SLOW = 120.0
"""Seconds for what may make the server ask an upstream."""

JsonObject = dict[str, object]
_UUID = re.compile(r"[0-9a-fA-F-]{8,64}")
NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


class NotDevpiError(NotReadyError):
    """Something answers that is not devpi, or not devpi alone: to ask again won't change that."""

    retryable = False


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who answers. ``proof`` and what follows it are only known of a server with deployer's plugin."""

    uuid: str
    server_version: str = ""
    proof: str | None = None
    default_mirror_url: str = ""
    deployer_version: str = ""
    web: bool | None = None
    offline: bool | None = None
    challenge: str = ""
    front: str = ""


@dataclass(frozen=True, kw_only=True)
class IndexStatus:
    """An index that answers, and its type on the server."""

    name: str
    type: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    status: int
    body: bytes
    reason: str = ""

    def json(self) -> JsonObject | None:
        """The body as a JSON object; None when it is anything else."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None


@dataclass(frozen=True, kw_only=True)
class _Login:
    user: str
    password: Secret
    token: Secret

    @property
    def headers(self) -> dict[str, str]:
        pair = f"{self.user}:{self.token.reveal()}"
        return {"X-Devpi-Auth": b64encode(pair.encode()).decode()}


def verify(identity: Identity, *, nonce: str, proof_key: str) -> bool:
    """Whether the server knows ``proof_key`` (hex), shown by its answer to ``nonce``; pure."""
    try:
        key = bytes.fromhex(proof_key)
    except ValueError:
        return False
    expected = hmac.new(key, f"{nonce}:{identity.uuid}".encode(), "sha256").hexdigest()
    return bool(key) and hmac.compare_digest(expected.encode(), (identity.proof or "").encode())


class DevpiApi:
    """devpi's API at ``base_url``. Proxies of the environment are never used, redirects never followed.

    ``timeout``: seconds for one request as a whole. Methods raise NotReadyError when nothing answers
    (NotDevpiError when something else does), ServerRefused with the server's own words for a 4xx or 5xx.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float = 10.0,
        transport: httpx.BaseTransport | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self.url = base_url.rstrip("/")
        self.timeout = timeout
        self._dialect = dialect
        self._deadline = Deadline()
        self._login: _Login | None = None
        self._uuid: str | None = None
        self._server_version: str | None = None
        tls = urlsplit(base_url).scheme == "https"
        self._client = httpx.Client(
            base_url=self.url,
            transport=transport or DeadlineTransport(self._deadline, tls=tls),
            trust_env=False,
            follow_redirects=False,
            # Without this header devpi-web answers errors, and some plugins even a login, with a page for people.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    # Who it is

    def identity(self, nonce: str | None = None) -> Identity:
        """Who answers; with ``nonce`` (hex) also the proof that it is the server of our data directory.

        One request to a server with deployer's plugin, two to any other devpi.
        """
        headers = {} if nonce is None else {"X-Deployer-Nonce": nonce}
        reply = self._request("GET", "/+deployer", headers=headers)
        if reply.status == 404:
            identity = self._foreign_identity()
        else:
            identity = _identity(self._object(self._accepted(reply, "tell who it is")))
        if not _UUID.fullmatch(identity.uuid):
            raise self._not_devpi("it does not tell its uuid")
        self._uuid = self._uuid or identity.uuid
        self._server_version = identity.server_version
        return identity

    def switch_offline(self, *, offline: bool, proof_key: str) -> None:
        """Have the server ask no upstream any more, or ask them again. ``proof_key``: hex, of its data directory.

        Raises ServerRefused also for a server without deployer's plugin.
        """
        identity = self.identity()
        if not identity.challenge:
            raise ServerRefused(
                f"{self.url} can't be switched while it runs",
                hint="set server.offline in the profile, then deployer up",
            )
        text = f"{identity.challenge}:{identity.uuid}:offline {'on' if offline else 'off'}"
        proof = hmac.new(bytes.fromhex(proof_key), text.encode(), "sha256").hexdigest()
        reply = self._request("POST", "/+deployer/offline", body={"offline": offline, "proof": proof})
        self._accepted(reply, "switch")

    @property
    def dialect(self) -> Dialect:
        """How this server spells what it is told: by its version, which is asked for once."""
        if self._dialect is None:
            if self._server_version is None:
                self.identity()
            self._dialect = dialect_of(self._server_version or "")
        if self._dialect is None:
            raise ServerRefused(
                f"{self.url} is devpi-server {self._server_version or 'of an unknown version'}: its users and indexes "
                "can be read but not made",
                hint="run devpi-server 6.20 or newer",
            )
        return self._dialect

    def _foreign_identity(self) -> Identity:
        status = self._get("/+status", "tell its status", kind="status")
        versions = status.get("versioninfo")
        version = versions.get("devpi-server") if isinstance(versions, dict) else None
        return Identity(uuid=text(status.get("uuid")), server_version=line(text(version)))

    def login(self, user: str, password: Secret) -> None:
        """Log in for the calls that follow; the token stays in memory, and is renewed once when it has expired.

        Ask :meth:`identity` first: a password must not be sent to a stranger.
        """
        body: JsonObject = {"user": user_name(user), "password": password.reveal()}
        reply = self._request("POST", "/+login", body=body)
        if reply.status in (401, 403):
            raise ServerRefused(
                f"cannot log in as {user} at {self.url}: the stored password is not the server's",
                hint=f"give the right one: deployer secret set {user}",
            )
        result = self._result(reply, f"log in {user}", kind="proxyauth")
        self._login = _Login(user=user, password=password, token=self._token(result))

    def use(self, user: str, password: Secret) -> None:
        """Send the password with each write that follows instead of logging in, for one that comes alone.

        A write that is refused logs in after all, which tells a wrong password from a missing right.
        """
        self._login = _Login(user=user_name(user), password=password, token=password)

    @property
    def authenticated(self) -> bool:
        """Whether writes are sent in somebody's name."""
        return self._login is not None

    # What it has

    def topology(self) -> Topology:
        """All users and the configuration of all indexes, in one request that never lists projects."""
        reply = self._request("GET", "/", limit=MAX_TOPOLOGY)
        raw = self._result(reply, "list its users and indexes", kind="list:userconfig")
        try:
            return Topology.parse(raw)
        except ValueError as error:
            raise self._not_devpi(line(str(error))) from None

    def simple_status(self, index: str) -> IndexStatus:
        """Whether ``index`` is served.

        Asks for the index's own configuration: that opens the index, its type's code and its plugin, as the first
        step of every simple page does. No simple page is asked for: the one of all projects makes a mirror fetch
        every name of its upstream, and one of an unknown project is an upstream request, too.
        """
        result = self._get(
            f"/{index_name(index)}", f"open index {index}", kind="indexconfig", params={"no_projects": ""}
        )
        return IndexStatus(name=index, type=text(result.get("type")))

    def projects(self, index: str) -> tuple[str, ...]:
        """The names of all projects on ``index`` itself.

        Never ask it of a mirror that has a list of projects (``mirror_no_project_list`` is false): that makes the
        server fetch every name of its upstream.
        """
        reply = self._request("GET", f"/{index_name(index)}", limit=MAX_LIST, timeout=SLOW)
        answer = self._result(reply, f"open index {index}", kind="indexconfig")
        names = answer.get("projects")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._not_devpi(f"no list of projects of {index}")
        return tuple(names)

    def is_empty(self, index: str, node: Node) -> bool:
        """Whether it is certain that nothing is on ``index``, of which ``node`` is known."""
        listed = node.fields.get("type") == "mirror" and node.fields.get("mirror_no_project_list") is not True
        return not listed and not self.projects(index)

    # What it shall have

    def put_user(self, name: str, fields: Mapping[str, Value], *, password: Secret) -> None:
        """Create a user."""
        self._write("PUT", f"/{user_name(name)}", {**fields, "password": password.reveal()}, f"create user {name}")

    def patch_user(self, name: str, fields: Mapping[str, Value]) -> None:
        """Change these fields of a user and no others."""
        self._write("PATCH", f"/{user_name(name)}", dict(fields), f"modify user {name}")

    def set_password(self, name: str, password: Secret) -> None:
        """Change a password; when it is that of the user who is logged in, go on with the new one.

        Tokens that others hold stay valid: devpi only checks their signature and age.
        """
        body: JsonObject = {"password": password.reveal()}
        result = self._write("PATCH", f"/{user_name(name)}", body, f"set the password of {name}")
        if self._login is not None and self._login.user == name:
            self._login = _Login(user=name, password=password, token=self._token(result))

    def put_index(self, name: str, fields: Mapping[str, Value]) -> None:
        """Create an index; ``fields`` in the words of version 6, whatever the server's are."""
        self._write("PUT", f"/{index_name(name)}", self.dialect.encode(fields), f"create index {name}")

    def patch_index(self, name: str, fields: Mapping[str, Value]) -> None:
        """Change these fields of an index and no others. Cached files of a mirror stay, also under a new address."""
        self._write("PATCH", f"/{index_name(name)}", self.dialect.encode(fields), f"modify index {name}")

    def delete_user(self, name: str) -> None:
        """Delete a user and all indexes of it. devpi refuses when one of them is not volatile."""
        self._write("DELETE", f"/{user_name(name)}", None, f"delete user {name}")

    def delete_index(self, name: str) -> None:
        """Delete an index and every file on it. devpi refuses when it is not volatile."""
        self._write("DELETE", f"/{index_name(name)}", None, f"delete index {name}")

    # How it is asked

    def _write(self, method: str, path: str, body: JsonObject | None, doing: str) -> JsonObject:
        reply = self._request(method, path, body=body, headers=self._auth())
        if reply.status in (401, 403) and self._login is not None and not self._token_is_valid():
            self._renew(self._login)
            reply = self._request(method, path, body=body, headers=self._auth())
        # Some answers to a write have no result, and none of ours but a new token is of use.
        result = self._object(self._accepted(reply, doing)).get("result")
        return result if isinstance(result, dict) else {}

    def _auth(self) -> dict[str, str]:
        return {} if self._login is None else self._login.headers

    def _token_is_valid(self) -> bool:
        # devpi treats an expired token as no token at all and answers 403, as for a user without the right.
        reply = self._request("GET", "/+api", headers=self._auth())
        result = self._result(reply, "tell whether the login is valid", kind="apiconfig")
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
            raise self._not_devpi("a login without a token")
        return Secret(token)

    def _get(self, path: str, doing: str, *, kind: str, params: Mapping[str, str] | None = None) -> JsonObject:
        return self._result(self._request("GET", path, params=params), doing, kind=kind)

    def _result(self, reply: Reply, doing: str, *, kind: str) -> JsonObject:
        answer = self._object(self._accepted(reply, doing))
        result = answer.get("result")
        if answer.get("type") != kind or not isinstance(result, dict):
            raise self._not_devpi(f"no {kind} in the answer")
        return result

    def _accepted(self, reply: Reply, doing: str) -> Reply:
        if reply.status >= 400:
            message = text((reply.json() or {}).get("message")) or reply.reason or "no reason given"
            told = f"{self.url} refused to {doing}: {line(message)} (HTTP {reply.status})"
            if reply.status == 409:
                raise ConflictError(
                    told, hint="it is there already, with other content: choose another name or version"
                )
            raise ServerRefused(told, hint=self._cure(reply.status))
        return reply

    def _cure(self, status: int) -> str:
        """What helps against an HTTP status."""
        who = self._login.user if self._login else "nobody"
        match status:
            case 401 | 403:
                return f"{who} may not, or nobody may as it stands: another user with --as, or see deployer index show"
            case 404:
                return "see what there is: deployer index list, deployer package list"
            case _:
                return "the server's log may say more: deployer logs"

    def _object(self, reply: Reply) -> JsonObject:
        answer = reply.json()
        if answer is None:
            raise self._not_devpi(f"HTTP {reply.status} without a JSON object: {line(_start(reply.body))}")
        return answer

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: JsonObject | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        limit: int = MAX_BODY,
        timeout: float | None = None,
        **content: Any,
    ) -> Reply:
        timeout = self.timeout if timeout is None else timeout
        self._deadline.start(timeout)
        try:
            with self._client.stream(
                method, path, json=body, params=params, headers=headers, timeout=timeout, **content
            ) as response:
                return self._read(response, limit)
        except httpx.TimeoutException:
            raise NotReadyError(
                f"{self.url} did not answer {method} {path} within {timeout:g} s",
                hint="see what it is doing: deployer logs",
            ) from None
        except httpx.TransportError as error:
            raise NotReadyError(
                f"cannot talk to {self.url}: {line(str(error))}", hint="see whether it runs: deployer status"
            ) from None

    def _read(self, response: httpx.Response, limit: int) -> Reply:
        if 300 <= response.status_code < 400:
            raise self._not_devpi(f"a redirect to {line(response.headers.get('Location', 'nowhere'))}")
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise self._not_devpi("a compressed answer that was not asked for")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > limit:
                raise self._not_devpi(f"an answer of more than {limit} bytes")
            self._deadline.left(None, httpx.ReadTimeout)
        return Reply(status=response.status_code, body=bytes(body), reason=line(response.reason_phrase))

    def _not_devpi(self, what: str) -> NotDevpiError:
        return NotDevpiError(
            f"{self.url} answers, but not as devpi does: {what}",
            hint="another program may hold this port: choose another with --port",
        )


def _identity(answer: JsonObject) -> Identity:
    web, offline, proof = answer.get("web"), answer.get("offline"), answer.get("proof")
    return Identity(
        uuid=text(answer.get("uuid")),
        server_version=line(text(answer.get("server_version"))),
        proof=proof if isinstance(proof, str) else None,
        default_mirror_url=text(answer.get("default_mirror_url")),
        deployer_version=line(text(answer.get("version"))),
        web=web if isinstance(web, bool) else None,
        offline=offline if isinstance(offline, bool) else None,
        challenge=text(answer.get("challenge")),
        front=line(text(answer.get("front"))),
    )


def user_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ProfileError(f"{name!r} can't be a user's name", hint="letters, digits, '_', '.' and '-'")
    return name


def index_name(name: str) -> str:
    user, _, index = name.partition("/")
    if not (NAME.fullmatch(user) and NAME.fullmatch(index)):
        raise ProfileError(f"{name!r} can't be an index", hint="write it as user/name")
    return name


def text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _start(body: bytes) -> str:
    return body[:200].decode("utf-8", "replace")


def line(text: str) -> str:
    """A stranger's words as one short line without control characters and without secrets."""
    words = " ".join(mask(text[:2000]).split())
    return "".join(char if char.isprintable() else "?" for char in words)[:300]
