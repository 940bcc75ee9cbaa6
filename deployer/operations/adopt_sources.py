"""Where packages are adopted from: a directory, a simple index, or an index of another devpi.

Only the given directory or the given address is read. A list of names is never asked of a public index.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx

from deployer.addresses import split
from deployer.devpi import simple
from deployer.devpi.connection import LONG, MAX_LIST, SLOW
from deployer.devpi.packages import PackageApi
from deployer.devpi.topology import Topology
from deployer.errors import Refused, ServerRefused, UsageError, VerificationError
from deployer.protocol import parsed
from deployer.secrets import mask_url

ENDS = (".whl", ".tar.gz", ".zip")
"""What the names of wheels and sdists end with."""
OTHER_ENDS = (".egg", ".exe", ".msi", ".tar.bz2", ".tgz", ".rpm", ".deb", ".tar.xz", ".tar.z")
"""What older indexes have besides; no installer takes it, and it is reported."""
AT_ONCE = 4
"""Requests at the same time."""
BLOCK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A file to adopt. ``origin``: its path or address, for messages. ``sha256``: as its index says, else empty.

    ``path``: on this host; None for a file that has to be fetched. ``fetch``: writes the content into a new file.
    """

    filename: str
    origin: str
    sha256: str = ""
    path: Path | None = None
    fetch: Callable[[Path], None] = lambda target: None

    def digest(self, scratch: Path) -> str:
        """The SHA-256 of the content. ``scratch``: a directory of the caller's."""
        if self.path is None and self.sha256:
            return self.sha256
        with self.here(scratch) as path, path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @contextlib.contextmanager
    def here(self, scratch: Path) -> Iterator[Path]:
        """The file under its own name; a fetched one is removed at the end. Raises VerificationError, ServerRefused."""
        if self.path is not None:
            yield self.path
            return
        directory = scratch / hashlib.sha256(self.origin.encode()).hexdigest()[:16]
        directory.mkdir()
        try:
            target = directory / self.filename
            self.fetch(target)
            yield target
        finally:
            shutil.rmtree(directory)


@contextlib.contextmanager
def of_directory(directory: Path) -> Iterator[list[Offer]]:
    """The wheels and sdists below a directory, also of a bandersnatch mirror. Raises UsageError."""
    if not directory.is_dir():
        raise UsageError(f"{directory} is no directory", hint="name a directory of wheels, or the URL of an index")
    offers = [
        Offer(filename=name, origin=str(path), path=path)
        for root, directories, names in os.walk(directory)
        for name in sorted(names)
        if name.lower().endswith(ENDS + OTHER_ENDS) and (path := Path(root) / name).is_file()
        if directories.sort() is None
    ]
    if not offers:
        raise UsageError(f"there is no wheel or sdist in {directory}", hint="name the directory with the files")
    yield offers


@contextlib.contextmanager
def of_url(url: str, *, public: str, upstreams: Iterable[str]) -> Iterator[list[Offer]]:
    """The files of a simple index, or of an index of another devpi.

    ``public``: URL of the public index, whose host is never asked. ``upstreams``: URLs of other indexes that are
    mirrored. Raises Refused for one of those, UsageError, ServerRefused.
    """
    parts = split(url)
    if parts is None or parts.query or parts.fragment:
        raise UsageError(f"{mask_url(url)!r} is no address", hint="name a directory, or http://HOST:PORT/simple/")
    if _host(public) == _host(url) or any(_overlap(upstream, url) for upstream in upstreams if upstream):
        raise Refused(
            f"{mask_url(url)} is the upstream of a mirror: a mirror fetches what is asked for",
            hint="deployer warm -r requirements.txt",
        )
    with contextlib.closing(_Client(url)) as client:
        index = _devpi_index(client, url)
        if index is None:
            yield _simple(client, f"{url.rstrip('/')}/")
            return
        base = url.rstrip("/").removesuffix("/+simple").removesuffix(f"/{index}")
        with PackageApi(base) as api:
            yield _devpi(client, api, index)


def _host(url: str) -> str:
    with contextlib.suppress(ValueError):
        return (urlsplit(url).hostname or "").lower()
    return ""


def _overlap(one: str, other: str) -> bool:
    """Whether one of these addresses is below the other."""
    first, second = (f"{url.rstrip('/').lower()}/" for url in (one, other))
    return first.startswith(second) or second.startswith(first)


# A simple index


def _simple(client: _Client, url: str) -> list[Offer]:
    """The files of a simple index. pypiserver has it below its address, in ``simple/``."""
    lists = (url,) if url.endswith("simple/") else (f"{url}simple/", url)
    pages: tuple[str, ...] = ()
    for address in lists:
        found = client.get(address, missing_ok=address != lists[-1])
        if found is not None:
            pages = _read(simple.projects, found, address)
            break
    with ThreadPoolExecutor(AT_ONCE, "adopt") as pool:
        found_files = pool.map(lambda page: _page(client, page), sorted(pages))
        return [offer for offers in found_files for offer in offers]


def _page(client: _Client, page: str) -> list[Offer]:
    got = client.get(page, missing_ok=True)
    return [] if got is None else [client.offer(link) for link in _read(simple.files, got, page)]


def _read(reader: Callable[..., tuple[T, ...]], got: _Got, url: str) -> tuple[T, ...]:
    try:
        return reader(got.content, got.kind, url=got.url)
    except ValueError as error:
        raise ServerRefused(f"{url} is no page of an index: {error}", hint="name the simple URL of an index") from None


# devpi


def _devpi_index(client: _Client, url: str) -> str | None:
    """The name of the index, if a devpi answers. Raises UsageError for a devpi's address without an index."""
    address = url.rstrip("/").removesuffix("/+simple")
    got = client.get(f"{address}?no_projects=", accept="application/json", missing_ok=True)
    told = got.json if got is not None else None
    kind = told.get("type") if told is not None else None
    if kind == "list:userconfig" and told is not None:
        listed = told.get("result")
        names = Topology.parse(listed).indexes if isinstance(listed, dict) else {}
        raise UsageError(f"{url} has several indexes", hint=f"add the name of one: {', '.join(sorted(names)[:20])}")
    return "/".join(address.split("/")[-2:]) if kind == "indexconfig" else None


def _devpi(client: _Client, api: PackageApi, index: str) -> list[Offer]:
    """The uploads of a stage. A mirror is refused: its names are those of its upstream."""
    if api.simple_status(index).type in ("mirror", "remote"):
        raise Refused(f"{index} is a mirror: it has no uploads", hint="name an index with uploads")
    offers = []
    for project in sorted(api.projects(index)):
        for file in api.released(index, project):
            offers.append(client.offer(simple.Link(filename=file.filename, url=file.url, sha256=file.sha256)))
    return offers


# HTTP


@dataclass(frozen=True)
class _Got:
    url: str
    kind: str
    content: bytes

    @property
    def json(self) -> dict[str, object] | None:
        with contextlib.suppress(ValueError):
            told = parsed(self.content)
            return told if isinstance(told, dict) else None
        return None


class _Client:
    """Asks one server, in several threads at once; never another one."""

    def __init__(self, url: str) -> None:
        self._origin = _origin(url)
        secure = urlsplit(url).scheme == "https"
        context = ssl.create_default_context() if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = httpx.Client(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=SLOW,
            headers={"Accept-Encoding": "identity"},
        )

    def close(self) -> None:
        self._client.close()

    def get(self, url: str, *, accept: str = simple.ACCEPT, missing_ok: bool = False) -> _Got | None:
        """A page; None when it is missing. Raises ServerRefused."""
        for _ in range(5):
            self._require_own(url)
            with self._asked(url, {"Accept": accept}) as response:
                if response.is_redirect:
                    url = str(response.url.join(response.headers["Location"]))
                    continue
                if response.status_code == 404 and missing_ok:
                    return None
                self._require_ok(response, url)
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > MAX_LIST:
                        raise ServerRefused(f"{mask_url(url)} has more than {MAX_LIST} bytes", hint="name an index")
                return _Got(url, response.headers.get("Content-Type", ""), bytes(content))
        raise ServerRefused(f"{mask_url(url)} redirects again and again", hint="name the address of the index itself")

    def offer(self, link: simple.Link) -> Offer:
        return Offer(
            filename=link.filename,
            origin=link.url,
            sha256=link.sha256,
            fetch=lambda target: self._fetch(link, target),
        )

    def _fetch(self, link: simple.Link, target: Path) -> None:
        """Write a file. Raises VerificationError for one that is not there, ServerRefused when the server fails."""
        if _origin(link.url) != self._origin:
            raise VerificationError(f"{mask_url(link.url)} is on another server", hint="adopt it from there")
        digest = hashlib.sha256()
        with self._asked(link.url, {"Accept": "*/*"}, timeout=LONG) as response, target.open("wb") as stream:
            if 400 <= response.status_code < 500:
                raise VerificationError(f"the server answers with status {response.status_code}", hint="get it anew")
            self._require_ok(response, link.url)
            for piece in response.iter_bytes(BLOCK):
                digest.update(piece)
                stream.write(piece)
        if link.sha256 and digest.hexdigest() != link.sha256:
            raise VerificationError(
                f"checksum mismatch: SHA-256 {digest.hexdigest()}, its index lists {link.sha256}", hint="get it anew"
            )

    @contextlib.contextmanager
    def _asked(self, url: str, headers: dict[str, str], timeout: float = SLOW) -> Iterator[httpx.Response]:
        try:
            with self._client.stream("GET", url, headers=headers, timeout=timeout) as response:
                yield response
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServerRefused(
                f"no answer from {mask_url(url)}: {error or type(error).__name__}", hint="check the address"
            ) from None

    @staticmethod
    def _require_ok(response: httpx.Response, url: str) -> None:
        if response.status_code != 200:
            raise ServerRefused(
                f"{mask_url(url)} answers with status {response.status_code}", hint="check the address of the index"
            )

    def _require_own(self, url: str) -> None:
        if _origin(url) != self._origin:
            raise ServerRefused(f"{mask_url(url)} is on another server", hint="adopt it from there")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def is_address(given: str) -> bool:
    """Whether ``given`` is an address."""
    return given.startswith(("http://", "https://"))


def by_name(offers: Sequence[Offer]) -> dict[str, list[Offer]]:
    """The offers by file name."""
    found: dict[str, list[Offer]] = {}
    for offer in offers:
        found.setdefault(offer.filename, []).append(offer)
    return found
