"""The canonical view of a mirror, below ``/USER/INDEX/+canonical/``: its upstream as the upstream presents itself.

Pages have the upstream's own addresses and promises. Files are found by the path of their original address. Clients
that are made to believe that they talk to the upstream itself get all that they ask for.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin, urlsplit

from devpi_server.normalized import normalize_name

from deployer.server.mirrors.page import File, Page
from deployer.server.mirrors.render import METADATA, PROVENANCE, SIGNATURE, Listed, Part
from deployer.server.mirrors.store import Kept, host_of

_VIEW = re.compile(r"/([^+/]+/[^+/]+)/\+canonical/(.*)", re.DOTALL)
_PAGE = re.compile(r"simple/([^/]+)/?")
_FILE = re.compile(r"packages(/.+)", re.DOTALL)
_HOSTED = re.compile(r"hosts/([a-z0-9.:-]+)(/.+)", re.DOTALL)
_API = re.compile(r"pypi/([^/]+)/(?:([^/]+)/)?json/?")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,99}")
_SUFFIXES = (METADATA, PROVENANCE, SIGNATURE)


@dataclass(frozen=True)
class PageAddress:
    """The address of a project's page. ``project``: normalised."""

    project: str


@dataclass(frozen=True)
class FileAddress:
    """The address of a file. ``path``: of its original address, with the slash; ``suffix``: of what belongs to it;
    ``host``: of its original address, with the port if that is unusual; empty for any."""

    path: str
    suffix: str
    host: str = ""

    @property
    def filename(self) -> str:
        return unquote(self.path.rpartition("/")[2])


@dataclass(frozen=True)
class ApiAddress:
    """The address of a page of the JSON API. ``project``: normalised; ``version``: empty for the latest."""

    project: str
    version: str

    @property
    def name(self) -> str:
        """A name for it, which no other address has."""
        return f"{self.project}=={self.version}" if self.version else self.project

    def url(self, mirror: str) -> str | None:
        """Its address at the upstream of a mirror with this URL; None where that follows no rule."""
        root = mirror.removesuffix("simple/")
        if not mirror.endswith("/simple/"):
            return None
        version = f"{quote(self.version, safe='')}/" if self.version else ""
        return f"{root}pypi/{quote(self.project)}/{version}json"


Address = PageAddress | FileAddress | ApiAddress


def address_of(path: str) -> tuple[str, Address | None] | None:
    """The index, and the address within its canonical view; None for a path that is in no canonical view."""
    found = _VIEW.fullmatch(path)
    return None if found is None else (found[1], _address(found[2]))


def _address(below: str) -> Address | None:
    if (page := _PAGE.fullmatch(below)) and _NAME.fullmatch(page[1]):
        return PageAddress(str(normalize_name(page[1])))
    if file := _FILE.fullmatch(below):
        return _file(file[1], "")
    if file := _HOSTED.fullmatch(below):
        return _file(file[2], file[1])
    if (api := _API.fullmatch(below)) and _NAME.fullmatch(api[1]) and (not api[2] or _VERSION.fullmatch(api[2])):
        return ApiAddress(str(normalize_name(api[1])), api[2] or "")
    return None


def _file(path: str, host: str) -> FileAddress:
    suffix = next((suffix for suffix in _SUFFIXES if path.endswith(suffix)), "")
    return FileAddress(path.removesuffix(suffix), suffix, host)


def find(kept: Kept, address: FileAddress) -> File | None:
    """The first file object of a page whose address has this path, and this host if one is asked for, whatever its
    query is."""
    return next((file for file in kept.named(address.filename) if address.path in _paths(file, address.host)), None)


def _paths(file: File, host: str) -> Iterator[str]:
    """The path of its address, as it is and decoded; nothing for an address at another host."""
    try:
        parts = urlsplit(file["url"])
    except ValueError:  # no host that is one
        return
    if not host or host_of(parts.netloc) == host:
        yield parts.path
        yield unquote(parts.path)


def part(page: Page, url: str) -> Part:
    """A page with its upstream's addresses. ``url``: where it came from."""
    return Part(page.fields, (_listed(file, url) for file in page.each()))


def _listed(file: File, url: str) -> Listed:
    provenance = file.get("provenance")
    if isinstance(provenance, str) and not provenance.startswith(("https://", "http://")):
        with contextlib.suppress(ValueError):  # no host that is one
            return Listed({**file, "provenance": urljoin(url, provenance)}, "")
    return Listed(file, "")
