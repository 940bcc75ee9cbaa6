"""What a client with TOML files is configured to do: every place that may name its index, by its precedence. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deployer.clients.client import Effective
from deployer.clients.text import decode
from deployer.clients.toml import editing, keys
from deployer.errors import ClientFileError
from deployer.secrets import mask_url

Document = Mapping[str, Any]
Hazards = Callable[[tuple["Place", ...]], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One file or variable that may name the index.

    ``keys``: where the index stands in a file, in rising precedence. ``ignored``: why the client does not read it.
    ``problem``: why the client fails on it.
    """

    path: Path | None = None
    variable: str = ""
    value: str = field(default="", repr=False)
    keys: tuple[str, ...] = ()
    document: Document = field(default_factory=dict, repr=False)
    ignored: str = ""
    problem: str = ""

    @property
    def source(self) -> str:
        return self.variable or str(self.path)

    @property
    def index(self) -> tuple[str, str]:
        """The index that it names, and its key in a file; both empty when it names none."""
        if self.ignored:
            return "", ""
        found = [(text(keys.get(self.document, key)), key) for key in reversed(self.keys)]
        return next((pair for pair in found if pair[0]), (self.value, ""))


def text(value: Any) -> str:
    """``value`` of a file if it is a string, else nothing."""
    return str(value) if isinstance(value, str) else ""


@dataclass(frozen=True, kw_only=True)
class TomlConfig:
    """All ``places`` that a client reads, in rising precedence; ``hazards``: what it says of them."""

    places: tuple[Place, ...]
    hazards: Hazards

    def effective(self, key: str) -> Effective:
        """The value of ``key``: of the index by precedence, of others by the strongest file that has it."""
        is_index = self._is_index(key)
        for place in reversed(self.places):
            value = place.index[0] if is_index else text(keys.get(place.document, key))
            if value and not place.ignored:
                return Effective(value, place.source)
        return Effective()

    @property
    def key(self) -> str:
        """Where in its file the effective index stands; empty for a variable, or none."""
        return next((place.index[1] for place in reversed(self.places) if place.index[0]), "")

    def masks(self, key: str, path: Path) -> tuple[str, ...]:
        if reason := self.ignores(path):
            return (f"{path} is not read: {reason}",)
        at = next((at for at, place in enumerate(self.places) if same(place.path, path)), None)
        if at is None or not self._is_index(key):
            return ()
        ours = self.places[at].index[0]
        stronger = [place for place in self.places[at + 1 :] if place.index[0] not in ("", ours)]
        return tuple(f"{place.source} ({mask_url(place.index[0])}) overrides {key} in {path}" for place in stronger)

    def ignores(self, path: Path) -> str:
        return next((place.ignored for place in self.places if same(place.path, path)), "")

    def with_file(self, path: Path, content: bytes) -> TomlConfig:
        document = editing.parse(decode(content))
        places = (replace(p, document=document, problem="") if same(p.path, path) else p for p in self.places)
        return replace(self, places=tuple(places))

    @property
    def warnings(self) -> tuple[str, ...]:
        problems = tuple(place.problem for place in self.places if place.problem and not place.ignored)
        return (*problems, *self.hazards(tuple(place for place in self.places if not place.ignored)))

    def _is_index(self, key: str) -> bool:
        return any(key in place.keys for place in self.places)


def same(one: Path | None, other: Path) -> bool:
    try:
        return one is not None and (one == other or one.resolve() == other.resolve())
    except (OSError, RuntimeError):  # a self-referencing link
        return False


def file(path: Path, keys_: tuple[str, ...], content: bytes | None, *, ignored: str = "") -> Place:
    """The place ``path`` with ``content``; ``None``: no such file, or one that can't be read."""
    try:
        document = editing.parse(decode(content or b""))
    except ClientFileError as error:
        return Place(path=path, keys=keys_, ignored=ignored, problem=f"{path} is {error.message}")
    return Place(path=path, keys=keys_, ignored=ignored, document=document)
