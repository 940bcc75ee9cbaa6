"""Find the addresses of a devpi index in the text of any lock file. Pure.

devpi's addresses have a form of their own: ``USER/INDEX/+simple/``, and ``USER/INDEX/+f/HASH/HASH/FILE``, where the
hashes are the first sixteen digits of the file's SHA-256. pip spells the plus sign as ``%2B``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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
class Entry:
    """The addresses of one package; ``name`` is empty for those that stand before all packages.

    ``files``: the names of files that the entry lists without an address.
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


def entries(text: str) -> Iterator[Entry]:
    """The packages of a lock file that have such addresses; of a file of another form, all of it as one."""
    found = find(text)
    starts = [match.start() for match in _ENTRY.finditer(text)]
    for start, end in zip([0, *starts], [*starts, len(text)], strict=True):
        inside = tuple(address for address in found if start <= address.start < end)
        block = text[start:end]
        named = re.search(r'^name = "([^"]+)"', block, re.MULTILINE) if start in starts else None
        if inside:
            files = tuple(re.findall(r'\bfile = "([^"]+)"', block)) if named else ()
            yield Entry(name=named[1] if named else "", addresses=inside, files=files)


def is_server(address: Address, base: str) -> bool:
    """Whether ``address`` is of the server ``base``; all names of this host are one."""
    one, other = urlsplit(address.server), urlsplit(base)
    if one.path.rstrip("/") != other.path.rstrip("/"):
        return False
    if is_loopback(address.server) and is_loopback(base):
        return one.port == other.port
    return (one.hostname, one.port, one.scheme) == (other.hostname, other.port, other.scheme)
