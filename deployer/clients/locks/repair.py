"""Put the upstream's addresses in the place of ours. Pure: what the server says is asked through a Protocol."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from deployer.clients.locks.addresses import Address, Package, is_server, names, packages


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

    def owner(self, index: str, project: str, filename: str = "") -> str:
        """The index that serves this file to clients of ``index``; without a file, the one that serves all of them."""

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
    """Replace our addresses in ``text``; a project is changed as a whole or not at all.

    ``kind``: the name of the file, for what differs between lock files.
    """
    changes: list[tuple[Address, str]] = []
    left: list[Left] = []
    for package in packages(text):
        try:
            changes += list(_of(package, text, kind, index))
        except Unknown as unknown:
            left += [
                Left(
                    address=address,
                    name=package.name or "the index",
                    reason=unknown.reason,
                    private=unknown.private,
                )
                for address in package.addresses
            ]
    for address, new in sorted(changes, key=lambda pair: pair[0].start, reverse=True):
        text = text[: address.start] + new + text[address.end :]
    if not left:
        text = _without_default(text, index.default_upstream.rstrip("/"), kind)
    return Repaired(text=text, replaced=len(changes), left=tuple(left))


def _of(package: Package, text: str, kind: str, index: Index) -> Iterator[tuple[Address, str]]:
    """Each address of a project with what takes its place. Raises Unknown."""
    for address in package.addresses:
        if not is_server(address, index.base):
            raise Unknown(f"it is of another server: add --url {address.server}/{address.index}/+simple/")
    owners: set[str] = set()
    for address in package.addresses:
        if address.filename:
            yield address, index.original(address.index, address.filename, address.digest)
            owners.add(address.index)
    for address in package.addresses:
        if not address.filename:
            mirror = _only(owners or _owners(package, address.index, text, kind, index))
            yield address, _spelled(index, mirror, kind)


def _owners(package: Package, above: str, text: str, kind: str, index: Index) -> set[str]:
    """The indexes that serve a project, or all projects of a file, to clients of the index ``above``."""
    if package.files:
        return {index.owner(above, package.name, filename) for filename in package.files}
    if package.name:
        return {index.owner(above, package.name)}
    found = {index.owner(above, name): name for name in names(text, kind)}
    for owner, name in found.items():
        try:
            index.upstream(owner)
        except Unknown as unknown:
            raise Unknown(f"{name}: {unknown.reason}", private=unknown.private) from None
    return set(found) or {index.mirror_of(above)}


def _only(owners: set[str]) -> str:
    if len(owners) > 1:
        raise Unknown(f"it is from several indexes: {', '.join(sorted(owners))}")
    return next(iter(owners))


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
