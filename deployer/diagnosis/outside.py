"""The address that clients use, asked through the proxy in front: which part of the proxy's configuration is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from deployer.diagnosis import Check, failure, ok, warning

NAME = "outside"
BODY = 64 << 20
"""Bytes of a body that a proxy has to take: wheels may be larger."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. ``error``: why there is none; ``location``: of a redirect."""

    status: int = 0
    location: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Through:
    """What came back through the proxy.

    ``identity``: the answer to the question who the server is; ``ours``: it named our uuid; ``proof``: ``right``,
    ``wrong`` or ``none``. ``addresses``: what the server names, by devpi's names.
    ``received``: headers that arrived. ``client``: who it takes for the client. ``body``: the answer to a large body
    before it was sent; 0 for none. ``file``: the address of a file, and its answer; None when the server has none.
    """

    identity: Answer
    ours: bool = False
    proof: str = "none"
    addresses: Mapping[str, str] = field(default_factory=dict)
    received: Sequence[str] = ()
    body: int = 0
    file: tuple[str, Answer] | None = None
    client: str = ""


def checks(url: str, local: str, found: Through, *, trusted: bool) -> Iterator[Check]:
    """``url``: the outside URL; ``local``: this server's own. ``trusted``: whether the profile trusts any proxy.

    All faults but those that follow from another one.
    """
    if (fault := _reached(url, local, found)) is not None:
        yield fault
        return
    faults = [*_faults(url, found)]
    yield from faults
    forwarded = "X-Forwarded-For" in found.received
    if forwarded and not trusted:
        yield warning(
            NAME,
            f"all clients behind the proxy count as one, {found.client}: in the access log, and in the limits of one "
            "address",
            cure=f"deployer up --set 'network.trusted_proxies=[\"{found.client}\"]'",
        )
    if trusted and not forwarded:
        yield warning(
            NAME,
            "the proxy does not name its clients: they count as one",
            cure="have it send X-Forwarded-For; nginx: proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        )
    if not faults:
        checked = "login, uploads and a file link" if found.file else "login and uploads; no file is stored yet"
        yield ok(NAME, f"{url} leads here: {checked}")


def _reached(url: str, local: str, found: Through) -> Check | None:
    """Why it is not this server that answers."""
    answer, prefix = found.identity, urlsplit(url).path
    passing = f"have the proxy pass {prefix or '/'} to {local}/"
    if answer.error:
        cure = "check the name, the port and the proxy; a certificate of your own CA is read from network.ca_file"
        return warning(NAME, f"{url} can't be asked from this host: {answer.error}", cure=cure)
    if answer.status == 200 and found.ours:
        match found.proof:
            case "right":
                return None
            case "none":
                return failure(NAME, f"{url}: the proxy drops request headers", cure="have it pass X-Deployer-Nonce")
            case _:
                return failure(
                    NAME, f"{url}: the proxy answers from a cache", cure="switch its cache off for this path"
                )
    if 300 <= answer.status < 400:
        target = answer.location.split("/+deployer")[0]
        if target.rstrip("/") != answer.location and target.startswith("http"):
            return failure(NAME, f"{url} redirects to {target}", cure=f"set network.outside_url to {target}")
        return failure(NAME, f"{url} redirects to {answer.location or 'nowhere'}", cure=passing)
    match answer.status:
        case 200:
            return failure(NAME, f"another server answers at {url}", cure=passing)
        case 401 | 403 | 407:
            told = f"{url}: the proxy itself asks for a login (HTTP {answer.status})"
            return failure(NAME, told, cure="switch the proxy's own login off for this path")
        case 421:
            cure = "have the proxy pass Host, or list the name that it sends under network.hosts; nginx: "
            return failure(
                NAME,
                f"{url}: the proxy sends a Host that this server does not know (HTTP 421)",
                cure=f"{cure}proxy_set_header Host $host;",
            )
        case 502 | 503 | 504:
            return failure(NAME, f"{url}: the proxy does not reach this server (HTTP {answer.status})", cure=passing)
        case _:
            return failure(
                NAME,
                f"{url} answers HTTP {answer.status}: the path does not arrive as it was sent",
                cure=f"{passing}, and change nothing else of the path",
            )


def _faults(url: str, found: Through) -> Iterator[Check]:
    for what, address in found.addresses.items():
        if not address.startswith(f"{url}/"):
            yield failure(
                NAME, f"the server names {address} as its {what}, which is not below {url}", cure="deployer up"
            )
            break
    if lost := [name for name in ("Authorization", "X-Devpi-Auth") if name not in found.received]:
        told = " and ".join(lost)
        yield failure(NAME, f"the proxy drops {told}: nobody can log in", cure=f"have it pass {told}")
    if found.body == 413:
        yield failure(
            NAME,
            f"the proxy refuses uploads of {BODY >> 20} MB (HTTP 413)",
            cure="raise the proxy's limit of a request's body; nginx: client_max_body_size 0;",
        )
    if found.file is not None:
        address, answer = found.file
        if not address.startswith(f"{url}/"):
            yield failure(
                NAME, f"a page links to {address}, which is not below {url}", cure="have it pass pages as they are"
            )
        elif answer.status != 200:
            told = answer.error or f"HTTP {answer.status}"
            yield failure(
                NAME, f"{address}: {told}", cure="have the proxy pass every path, with + and % as it was sent"
            )
