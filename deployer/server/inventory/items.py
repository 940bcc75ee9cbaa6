"""The rows of the inventory: files of mirrors, uploads, pages of upstreams, and what stands beside files."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from packaging.utils import canonicalize_name

from deployer.protocol import COMPANIONS, Kind
from deployer.server.guard.rules import version_of
from deployer.server.mirrors.page import project_candidates

BLOCK = 4096
"""Bytes in which a file system gives room to files, and the size of a small directory."""
CANDIDATES = 20
"""Projects that a file is looked for in, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something on the disk. ``path``: below its index; of a page, the project. ``size``: in bytes.

    ``first``, ``last``: when it came, and was last used, in seconds since the epoch. ``origin``: the upstream; empty of
    uploads.
    """

    kind: Kind
    index: str
    path: str
    project: str
    version: str = ""
    size: int = 0
    first: float = 0.0
    last: float = 0.0
    origin: str = ""

    @property
    def disk(self) -> int:
        """Bytes that it takes of the disk. A file has two directories: one of its own, and one that it shares with few
        others, by the first digits of its hash. A page has none."""
        own = 0 if self.kind is Kind.PAGE else 2 * BLOCK
        return own + -(-self.size // BLOCK) * BLOCK


def item_of(kind: Kind, index: str, path: str, *, project: str = "", **known: float | int | str) -> Item:
    """The item of a file at ``path``; its version, and the project where it is not known, are read from its name."""
    name = path.rpartition("/")[2]
    if kind is Kind.COMPANION:
        name = next((name.removesuffix(suffix) for suffix in COMPANIONS if name.endswith(suffix)), name)
    if kind is Kind.PAGE:
        return Item(kind=kind, index=index, path=path, project=path, **known)  # type: ignore[arg-type]
    named = project or next(iter(projects_of(name)), name.lower())
    version = version_of(name, named) or ""
    return Item(kind=kind, index=index, path=path, project=named, version=version, **known)  # type: ignore[arg-type]


def projects_of(filename: str) -> list[str]:
    """The projects, by normalised name, that a file of this name may be of; the likeliest first."""
    return list(
        dict.fromkeys(str(canonicalize_name(name)) for name in islice(project_candidates(filename), CANDIDATES) if name)
    )
