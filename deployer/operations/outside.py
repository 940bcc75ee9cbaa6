"""Ask the server through the address that clients use, and read what a proxy in front made of it."""

from __future__ import annotations

import secrets
import ssl
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from deployer.devpi.identity import Identity, verify
from deployer.diagnosis import Check
from deployer.diagnosis.outside import BODY, Answer, Through, checks
from deployer.errors import DeployerError
from deployer.protocol import IDENTITY_ROUTE, NONCE_HEADER, About, InventoryRequest, parsed

if TYPE_CHECKING:
    from deployer.devpi.packages import PackageApi
    from deployer.operations.prepare import Prepared

TIMEOUT = 10.0
"""Seconds for each step of one request."""
EARLY = 1.0
"""Seconds in which a proxy refuses a body that is too large by its length alone."""
LIMIT = 1 << 20
"""Bytes of one answer that are read."""
_NOBODY = b64encode(b"deployer-asks-through:no-password").decode()
_PIP = "application/vnd.pypi.simple.v1+json"
_ADDRESSES = {"login": "address for logins", "index": "address of an index", "simpleindex": "index for installers"}


@dataclass(frozen=True, kw_only=True)
class Here:
    """This server: what the answers are compared with. ``index``: the one of clients. ``stored``: a project with files
    on that index or below it, empty when there is none. ``ca_file``: CA certificates besides the system's."""

    uuid: str
    proof_key: str
    index: str
    stored: tuple[str, str] | None = None
    ca_file: Path | None = None


def checked(prepared: Prepared, uuid: str, api: PackageApi) -> Iterator[Check]:
    """Check the outside URL of a server that is ready and proven, if it has one. ``api``: of this server itself."""
    network, key = prepared.loaded.profile.network, prepared.server_dir.proof_key()
    own = prepared.plan.image is None or prepared.plan.image.own
    if not network.outside_url or key is None or not own:
        return
    here = Here(
        uuid=uuid,
        proof_key=key,
        index=urlsplit(prepared.plan.simple_url).path.removesuffix("/+simple/").strip("/"),
        stored=_stored(api, key),
        ca_file=prepared.facts.ca_file,
    )
    found = through(network.outside_url, here)
    yield from checks(network.outside_url, api.url, found, trusted=bool(network.trusted_proxies))


def _stored(api: PackageApi, key: str) -> tuple[str, str] | None:
    """The index and the name of any project that has files."""
    try:
        listed = api.inventory(InventoryRequest(), proof_key=key)["projects"]
    except DeployerError:
        return None
    return next(((one["index"], one["project"]) for one in listed if one["files"]), None)


def through(url: str, here: Here, *, early: float = EARLY) -> Through:
    """Ask ``url`` without a password. ``early``: as :data:`EARLY`."""
    asker = _Asker(url.rstrip("/"), here.ca_file)
    nonce = secrets.token_hex(16)
    told = {"Authorization": f"Basic {_NOBODY}", "X-Devpi-Auth": _NOBODY, "Accept": "application/json"}
    identity, body = asker.get(IDENTITY_ROUTE, {NONCE_HEADER: nonce, **told})
    about = About.parse(_object(body))
    known = Identity.of_ours(dict(_object(body)))
    ours = identity.status == 200 and known.uuid == here.uuid
    proof = "none" if not known.proof else "right" if verify(known, nonce=nonce, proof_key=here.proof_key) else "wrong"
    if not ours or proof != "right":
        return Through(identity=identity, ours=ours, proof=proof)
    _, body = asker.get(f"/{here.index}/+api", {"Accept": "application/json"})
    api = _object(_object(body).get("result"))
    return Through(
        identity=identity,
        ours=True,
        proof="right",
        addresses={word: str(api[key]) for key, word in _ADDRESSES.items() if isinstance(api.get(key), str)},
        body=asker.offer(f"/{here.index}/", BODY, within=early),
        file=_file(asker, *here.stored) if here.stored else None,
        client=about.client,
        received=about.received,
    )


def _file(asker: _Asker, index: str, project: str) -> tuple[str, Answer] | None:
    """The address of a file on a project's page, and whether it is there."""
    path = f"/{index}/+simple/{project}/"
    answer, body = asker.get(path, {"Accept": _PIP})
    if answer.status != 200:
        return f"{asker.url}{path}", answer
    files = _object(body).get("files")
    link = next((one["url"] for one in files or () if isinstance(one, dict) and isinstance(one.get("url"), str)), "")
    address = urljoin(f"{asker.url}{path}", link).partition("#")[0]
    if not address.startswith(f"{asker.url}/"):
        return address, Answer()
    return address, asker.get(address.removeprefix(asker.url), {}, method="HEAD")[0]


def _object(value: object) -> Mapping[str, Any]:
    """A JSON object: a body, or a value of one; empty for anything else."""
    if isinstance(value, bytes):
        try:
            value = parsed(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


class _Asker:
    """One connection for each question: the proxy may close it."""

    def __init__(self, url: str, ca_file: Path | None) -> None:
        self.url = url
        self._parts = urlsplit(url)
        self._context = ssl.create_default_context() if self._parts.scheme == "https" else None
        if self._context is not None and ca_file is not None and ca_file.exists():
            self._context.load_verify_locations(ca_file)

    def get(self, path: str, headers: Mapping[str, str], *, method: str = "GET") -> tuple[Answer, bytes]:
        """The answer and the beginning of its body."""
        connection = self._connection()
        try:
            connection.request(method, self._parts.path + path, headers=dict(headers))
            response = connection.getresponse()
            location = response.headers.get("Location", "")
            return Answer(status=response.status, location=location), response.read(LIMIT)
        except (OSError, HTTPException, ValueError) as error:
            return Answer(error=_reason(error)), b""
        finally:
            connection.close()

    def offer(self, path: str, length: int, *, within: float) -> int:
        """Announce a body and send nothing of it; the status of an early answer, 0 without one."""
        connection = self._connection()
        try:
            connection.putrequest("POST", self._parts.path + path)
            connection.putheader("Content-Length", str(length))
            connection.endheaders()
            connection.sock.settimeout(within)
            return connection.getresponse().status
        except (OSError, HTTPException, ValueError):
            return 0
        finally:
            connection.close()

    def _connection(self) -> HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._context is not None:
            return HTTPSConnection(host, port, timeout=TIMEOUT, context=self._context)
        return HTTPConnection(host, port, timeout=TIMEOUT)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return str(getattr(error, "strerror", "") or error) or type(error).__name__
