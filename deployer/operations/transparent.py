"""Transparent commands: what they ask the server for, their certificate, and their tunnel."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from deployer.clients.client import Account
from deployer.clients.transparent import environment, roots, settings
from deployer.clients.transparent.authority import Certificate, certificate
from deployer.clients.transparent.routes import Mirror, spelled, view_of
from deployer.clients.transparent.tunnel import USER, Plan
from deployer.clients.variables import Changes
from deployer.errors import ClientFileError, EngineUnreachable, NotReadyError, Refused, ServerRefused
from deployer.host.runner import Runner
from deployer.host.state_dir import state_dir
from deployer.operations.client_files import settings_for
from deployer.operations.environment import DIRECTORY
from deployer.protocol import MIRRORED_ROUTE, Mirrored, parsed
from deployer.secrets import mask_url

SECONDS = 30.0
_FRUGAL = {"MALLOC_ARENA_MAX": "1"}
"""glibc would give each of the tunnel's threads a part of memory of its own (mallopt(3))."""
_LARGEST = 1 << 20
_ANY = ("pip", "setuptools", "wheel")
"""Projects of almost every index: where no page is known yet, one of theirs tells where files are."""
PROGRAM = "import sys; sys.path.insert(0, sys.argv[1]); from deployer.clients.transparent.tunnel import main; main()"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the server says of an index: its mirrors that a tunnel can answer for, and those that it can't, with the
    reason; ``default``: the index that clients use without any setting."""

    mirrors: tuple[Mirror, ...]
    left_out: tuple[str, ...]
    default: str


def start(name: str, env: Mapping[str, str], *, owner: int, index: str = "", directory: Path) -> Changes:
    """Start a tunnel that ends with the process ``owner``; return the variables that lead through it.

    ``directory``: where the command will run. Everything that can be refused is refused before the tunnel starts.
    Raises Refused, ConflictError, NotReadyError, ServerRefused, ClientFileError, UsageError.
    """
    server, index = _located(name, index)
    known = ask(server, index)
    found = settings.read(Account.of(env), directory)
    chain = environment.chain(env, found)
    indexes = environment.indexes(found, mirrors=known.mirrors, server=server, default=known.default)
    trust = _trust(name, env, found, known)
    tunnel = _opened(server, index, known, chain, trust, owner=owner)
    proxied = environment.proxied(env, found, mirrors=known.mirrors, proxy=tunnel.proxy(), bundles=trust.bundles)
    return Changes(
        values={**indexes.values, **proxied.values},
        removed=(*indexes.removed, *proxied.removed),
        warnings=(*known.left_out, *indexes.warnings),
    )


def start_for_build(name: str, env: Mapping[str, str], *, owner: int, index: str = "", isolated: bool) -> Tunnel:
    """Start a tunnel for the steps of a container build, which ends with the process ``owner``.

    ``isolated``: whether the steps are in another network than this host's. What clients of this host are configured to
    do does not count, but for its proxies and trusted roots. Raises as :func:`start`.
    """
    server, index = _located(name, index)
    known = ask(server, index)
    found = settings.read(Account.of(env), Path.cwd())
    chain = environment.chain(env, found)
    trust = _trust(name, env, found, known)
    return _opened(server, index, known, chain, trust, owner=owner, isolated=isolated)


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """A tunnel that runs. ``hosts``: those that it answers for. ``roots``: what its clients have to trust, as PEM.
    ``no_proxy``: hosts that clients ask without it."""

    port: int
    token: str = field(repr=False)
    hosts: tuple[str, ...]
    roots: str = field(repr=False)
    no_proxy: str
    left_out: tuple[str, ...]

    def proxy(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """The address for clients that reach it at ``host`` and ``port``; 0 for its own port."""
        return f"http://{USER}:{self.token}@{host}:{port or self.port}"


@dataclass(frozen=True, kw_only=True)
class _Trust:
    """``own``: the tunnel's certificate. ``bundles``: files with former roots and its CA, by variable."""

    own: Certificate
    bundles: Mapping[str, Path]

    @property
    def all(self) -> str:
        return roots.union(path.read_text(encoding="utf-8") for path in self.bundles.values())


def _located(name: str, index: str) -> tuple[str, str]:
    """The address of the server, and the index's name."""
    chosen = settings_for(name, index=index).index_url
    return chosen.rsplit("/", 4)[0], "/".join(chosen.split("/")[-4:-2])


def _trust(name: str, env: Mapping[str, str], found: settings.Settings, known: Known) -> _Trust:
    former = roots.former(env, pip_cert=found.pip_cert)
    own = certificate(environment.hosts_of(known.mirrors), directory=state_dir(name) / DIRECTORY)
    try:
        bundles = {variable: roots.bundle(text, own.ca, directory=own.ca.parent) for variable, text in former.items()}
    except OSError as error:
        raise ClientFileError(
            f"{own.ca.parent} can't be written: {error.strerror}", hint="free some space, or correct its mode and owner"
        ) from None
    return _Trust(own=own, bundles=bundles)


def _opened(
    server: str,
    index: str,
    known: Known,
    chain: environment.Chain,
    trust: _Trust,
    *,
    owner: int,
    isolated: bool = False,
) -> Tunnel:
    token = secrets.token_urlsafe(16)
    plan = Plan(
        server=server,
        name=index,
        mirrors=known.mirrors,
        certificate=str(trust.own.chain),
        key=str(trust.own.key),
        roots=str(trust.bundles[roots.OPENSSL]),
        token=token,
        owner=owner,
        server_ca=str(trust.bundles[roots.OPENSSL]),
        chain=chain.https,
        plain_chain=chain.http,
        no_proxy=chain.no_proxy,
        isolated=isolated,
    )
    hosts = {host for mirror in known.mirrors for host in mirror.hosts}
    return Tunnel(
        port=_launched(plan),
        token=token,
        hosts=tuple(sorted(map(spelled, hosts))),
        roots=trust.all,
        no_proxy=environment.without_hosts(chain.no_proxy, hosts) or "",
        left_out=known.left_out,
    )


def _launched(plan: Plan) -> int:
    """Start the tunnel's program, which goes on by itself; its port. Raises NotReadyError."""
    package = Path(sys.modules["deployer"].__path__[0])
    # Without site: what is installed beside deployer is not looked at, which takes longer than all else.
    words = (sys.executable, "-I", "-S", "-c", PROGRAM, str(package.parent))
    try:
        done = Runner().run(words, stdin=plan.encoded, timeout=SECONDS, env={**os.environ, **_FRUGAL})
    except EngineUnreachable as error:
        raise _not_started(error.message) from None
    try:
        return int(done.stdout)
    except ValueError:
        raise _not_started((done.stderr.strip().splitlines() or ["no output"])[-1]) from None


def _not_started(why: str) -> NotReadyError:
    return NotReadyError(f"the tunnel did not start: {why}", hint="run it again without --transparent")


# The server


def ask(server: str, index: str) -> Known:
    """What an index mirrors. Raises Refused when nothing of it can be transparent; as :func:`_get`."""
    mirrors, default = _mirrored(server, index)
    unknown = [mirror for mirror in mirrors if not mirror.hosts]
    silent = {mirror.name for mirror in unknown if not _made_known(server, mirror)}
    if unknown:
        mirrors, default = _mirrored(server, index)
    why = {mirror.name: why_not(mirror, silent=mirror.name in silent) for mirror in mirrors}
    usable = [mirror for mirror in mirrors if not why[mirror.name]]
    left_out = [f"{name} is not transparent: {reason}" for name, reason in why.items() if reason]
    if not usable:
        message = left_out[0] if left_out else f"{index} reads no mirror, and only mirrors are transparent"
        raise Refused(
            message,
            hint="run it without --transparent, which also makes pages known, or name another index with --index",
        )
    return Known(
        mirrors=tuple(Mirror(view=view_of(one.name), url=one.url.rstrip("/") + "/", files=one.hosts) for one in usable),
        left_out=tuple(left_out),
        default=default,
    )


def _made_known(server: str, mirror: Mirrored) -> bool:
    """Have the server ask for a page that says where files are; False when the upstream does not answer."""
    for project in _ANY:
        status, _ = _get(server, f"{view_of(mirror.name)}/simple/{project}/", json_only=False)
        if status != HTTPStatus.NOT_FOUND:
            return status == HTTPStatus.OK
    return True


def why_not(mirror: Mirrored, *, silent: bool = False) -> str:
    """Why a tunnel can't answer for the upstream of a mirror; empty when it can. ``silent``: it does not answer."""
    parts = urlsplit(mirror.url)
    if parts.scheme != "https":
        return f"its upstream {mask_url(mirror.url)} has no https"
    try:
        ip_address(parts.hostname or "")
    except ValueError:
        if mirror.hosts:
            return ""
        if silent:
            return f"its upstream {mask_url(mirror.url)} does not answer, and no page of it is known"
        return "no page of it is known, which would say where its files are"
    return f"its upstream {mask_url(mirror.url)} has an address for a name"


def _mirrored(server: str, index: str) -> tuple[tuple[Mirrored, ...], str]:
    status, body = _get(server, f"{MIRRORED_ROUTE}?index={quote(index)}")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ServerRefused(
            f"{index} can be read with a login only, and transparent commands have none",
            hint="deployer exec --no-transparent -- COMMAND",
        )
    mirrors = Mirrored.parse(body)
    if status == HTTPStatus.NOT_FOUND or mirrors is None:
        raise ServerRefused(
            f"{server} does not say which upstreams {index} has (status {status})",
            hint="check the index, and that the server runs this version of deployer: deployer status",
        )
    default = body.get("default")
    return mirrors, default if isinstance(default, str) else ""


def _get(server: str, path: str, *, json_only: bool = True) -> tuple[int, Any]:
    """Status and JSON of one request, not through a proxy. Raises NotReadyError."""
    parts = urlsplit(server)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc.rpartition("@")[2], timeout=SECONDS)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(_LARGEST + 1)
    except (OSError, HTTPException) as error:
        raise NotReadyError(f"{server} does not answer: {error}", hint="deployer start, or deployer up") from None
    finally:
        connection.close()
    if not json_only or len(body) > _LARGEST:
        return answer.status, None
    try:
        return answer.status, parsed(body)
    except ValueError:
        return answer.status, None
