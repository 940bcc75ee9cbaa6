"""Find the addresses of a devpi index in the text of any lock file. Pure.

devpi's addresses have a form of their own: ``USER/INDEX/+simple/``, and ``USER/INDEX/+f/HASH/HASH/FILE``, where the
hashes are the first sixteen digits of the file's SHA-256. pip spells the plus sign as ``%2B``.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from deployer.addresses import is_loopback
from deployer.secrets import mask_url

_ADDRESS = re.compile(
    r"""(?P<server>https?://[^\s"'<>#]+?)/(?P<index>[\w.-]+/[\w.-]+)/(?:\+|%2[Bb])
        (?:(?:simple|canonical/simple)/?(?=[\s"'<>,;\#]|\Z)|(?:canonical/packages|[ef])/(?P<file>[^\s"'<>,;\#]+))""",
    re.VERBOSE,
)
_ENTRY = re.compile(r"^\[\[packages?\]\]", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Address:
    """One address: its place in the text, the server's address, and ``user/index``.

    ``filename``: empty for the address of an index; ``digest``: what the path says of the file's SHA-256.
    """

    start: int
    end: int
    line: int
    url: str
    server: str
    index: str
    filename: str = ""
    digest: str = ""

    @property
    def shown(self) -> str:
        return mask_url(self.url)


@dataclass(frozen=True, kw_only=True)
class Package:
    """All addresses of one project in a lock file; ``name`` is empty for an index that the whole file is from.

    ``files``: the names of files that are listed without an address.
    """

    name: str
    addresses: tuple[Address, ...]
    files: tuple[str, ...] = ()


def find(text: str) -> tuple[Address, ...]:
    """All addresses of a devpi index in ``text``."""
    return tuple(_address(match, text) for match in _ADDRESS.finditer(text))


def _address(match: re.Match[str], text: str) -> Address:
    parts = (match["file"] or "").split("/")
    return Address(
        start=match.start(),
        end=match.end(),
        line=text.count("\n", 0, match.start()) + 1,
        url=match[0],
        server=match["server"],
        index=match["index"],
        filename=unquote(parts[-1]),
        digest="".join(parts[:2]) if len(parts) == 3 and re.fullmatch(r"[0-9a-f]{16}", "".join(parts[:2])) else "",
    )


def packages(text: str) -> tuple[Package, ...]:
    """The projects of a lock file that have such addresses, wherever these stand."""
    found: dict[str, list[Address]] = {}
    files: dict[str, tuple[str, ...]] = {}
    starts = [match.start() for match in _ENTRY.finditer(text)]
    ends = [*starts[1:], len(text)]
    for address in find(text):
        at = bisect_right(starts, address.start) - 1
        block = text[starts[at] : ends[at]] if at >= 0 else ""
        name = _project(address, text, block)
        found.setdefault(name, []).append(address)
        files[name] = files.get(name, ()) + tuple(re.findall(r'\bfile = "([^"]+)"', block))
    return tuple(Package(name=name, addresses=tuple(found[name]), files=files[name]) for name in found)


def _project(address: Address, text: str, block: str) -> str:
    """The project that an address is of: an index may stand beside the name of another one, a dependency."""
    line = text[text.rfind("\n", 0, address.start) + 1 : address.start]
    named = None if address.filename else re.search(r'\{ ?name = "([^"]+)"', line)
    named = named or re.search(r'^name = "([^"]+)"', block, re.MULTILINE)
    return named[1] if named and block else address.filename


def names(text: str, kind: str) -> tuple[str, ...]:
    """The projects that a file names which is as a whole from one index: requirements, or Pipfile.lock."""
    pattern = r'^ {8}"([\w.-]+)": \{' if kind == "Pipfile.lock" else r"^([A-Za-z0-9][\w.-]*)(?=[\s=<>!~;\[@]|\Z)"
    return tuple(dict.fromkeys(re.findall(pattern, text, re.MULTILINE)))


def is_server(address: Address, base: str) -> bool:
    """Whether ``address`` is of the server ``base``; all names of this host are one."""
    one, other = urlsplit(address.server), urlsplit(base)
    if one.path.rstrip("/") != other.path.rstrip("/"):
        return False
    if is_loopback(address.server) and is_loopback(base):
        return one.port == other.port
    return (one.hostname, one.port, one.scheme) == (other.hostname, other.port, other.scheme)
