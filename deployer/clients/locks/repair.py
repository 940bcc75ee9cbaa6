"""Put the upstream's addresses in the place of ours. Pure: what the server says is asked through a Protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from deployer.clients.locks.addresses import Address, Entry, entries, is_server


class Unknown(Exception):
    """Why an address has no counterpart at an upstream, in a few words; ``private``: because it is a stage's."""

    def __init__(self, reason: str, *, private: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.private = private


class Index(Protocol):
    """What our server knows of the upstreams. All methods raise Unknown."""

    base: str
    """The server's address."""
    default_upstream: str
    """The index that clients use without any setting, as devpi-server knows it."""

    def original(self, mirror: str, filename: str, digest: str) -> str:
        """The upstream's address of a file of ``mirror`` whose SHA-256 begins with ``digest``."""

    def owner(self, index: str, project: str, filename: str) -> str:
        """The index that serves this file to clients of ``index``."""

    def mirror_of(self, index: str) -> str:
        """The only mirror that clients of ``index`` get packages from."""

    def upstream(self, mirror: str) -> str:
        """The address of the mirror's upstream."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """An address that was not replaced."""

    address: Address
    name: str
    reason: str
    private: bool


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """The new text, the number of addresses that were replaced, and those that were not."""

    text: str
    replaced: int
    left: tuple[Left, ...]


def repair(text: str, *, kind: str, index: Index) -> Repaired:
    """Replace our addresses in ``text``; a package is changed as a whole or not at all.

    ``kind``: the name of the file, for what differs between lock files.
    """
    changes: list[tuple[Address, str]] = []
    left: list[Left] = []
    for entry in entries(text):
        try:
            changes += list(_of(entry, kind, index))
        except Unknown as unknown:
            left += [
                Left(address=address, name=_name(entry), reason=unknown.reason, private=unknown.private)
                for address in entry.addresses
            ]
    for address, new in sorted(changes, key=lambda pair: pair[0].start, reverse=True):
        text = text[: address.start] + new + text[address.end :]
    if not left:
        text = _without_default(text, index.default_upstream.rstrip("/"), kind)
    return Repaired(text=text, replaced=len(changes), left=tuple(left))


def _name(entry: Entry) -> str:
    named = entry.name or next((address.filename for address in entry.addresses if address.filename), "")
    return named or "the index"


def _of(entry: Entry, kind: str, index: Index) -> Iterator[tuple[Address, str]]:
    """Each address of a package with what takes its place. Raises Unknown."""
    for address in entry.addresses:
        if not is_server(address, index.base):
            raise Unknown(f"it is of another server: add --url {address.server}/{address.index}/+simple/")
    mirrors: list[str] = []
    for address in entry.addresses:
        if address.filename:
            yield address, index.original(address.index, address.filename, address.digest)
            mirrors.append(address.index)
    for address in entry.addresses:
        if not address.filename:
            known = mirrors or [index.owner(address.index, entry.name, name) for name in entry.files[:1]]
            mirror = known[0] if known and entry.name else index.mirror_of(address.index)
            yield address, _spelled(index, mirror, kind)


def _spelled(index: Index, mirror: str, kind: str) -> str:
    """The upstream's address as this kind of file has it: uv, poetry and pylock.toml by default without a slash.

    Raises Unknown for a source of poetry.lock that the project would have to have by a name.
    """
    bare = index.upstream(mirror).rstrip("/")
    if kind == "poetry.lock" and bare != index.default_upstream.rstrip("/"):
        raise Unknown(f"the upstream of {mirror} is not poetry's default: add it to pyproject.toml, then: poetry lock")
    return bare if kind.endswith((".lock", ".toml")) and kind != "Pipfile.lock" else f"{bare}/"


def _without_default(text: str, default: str, kind: str) -> str:
    """``text`` as a client writes it that uses its default index and was given no other."""
    if not default:
        return text
    url = re.escape(default)
    if kind == "poetry.lock":
        source = rf'\n\[package\.source\]\ntype = "legacy"\nurl = "{url}"\nreference = "[^"]*"\n'
        return re.sub(source, "", text)
    if kind.endswith(".txt"):
        return re.sub(rf"^(?:--index-url|-i) {url}/?\n(?:--trusted-host \S+\n)*\n?", "", text, flags=re.MULTILINE)
    return text
