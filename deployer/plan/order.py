"""Which mirrors an index merges for an installer. Pure, and cheap to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class Kind(Protocol):
    """An index: its type and its bases."""

    @property
    def type(self) -> str: ...
    @property
    def bases(self) -> Sequence[str] | None: ...


class Readable(Kind, Protocol):
    """An index with its readers; None for everybody, where the server knows no others."""

    @property
    def read(self) -> Sequence[str] | None: ...


def below(indexes: Mapping[str, Kind], index: str) -> tuple[str, ...]:
    """``index`` and all its direct and indirect bases, each once, in order."""
    found: dict[str, None] = {}
    queue = [index]
    while queue:
        current = queue.pop(0)
        if current in found or current not in indexes:
            continue
        found[current] = None
        queue.extend(indexes[current].bases or ())
    return tuple(found)


def mirrors_below(indexes: Mapping[str, Kind], index: str) -> tuple[str, ...]:
    """The mirrors among the direct and indirect bases of ``index``, each once, in order."""
    return tuple(name for name in below(indexes, index) if indexes[name].type in ("mirror", "remote"))


def merged(indexes: Mapping[str, Kind], index: str) -> tuple[str, ...]:
    """The mirrors below ``index`` that no ordered index separates: clients take the highest version of them all."""
    mirrors = mirrors_below(indexes, index)
    apart = [set(mirrors_below(indexes, one)) for one in below(indexes, index) if indexes[one].type == "ordered"]
    return tuple(
        mirror
        for mirror in mirrors
        if any(other != mirror and not any({mirror, other} <= both for both in apart) for other in mirrors)
    )


def read_by_everybody(indexes: Mapping[str, Readable]) -> tuple[str, ...]:
    """The indexes that need no password: neither they nor what they inherit from names its readers."""
    closed = {name for name, index in indexes.items() if index.read is not None and ":ANONYMOUS:" not in index.read}
    return tuple(name for name in indexes if closed.isdisjoint(below(indexes, name)))


def warning(index: str, mirrors: Sequence[str]) -> str:
    """The warning about an index that merges ``mirrors``."""
    together = " and ".join(mirrors)
    return f"{index} merges the mirrors {together}: a public package of a higher version replaces a private one"
