"""What pip on this host is configured to do, by pip's own precedence of files and variables.

The section of a command (``[install]``) has precedence over ``[global]`` of any file (pip's ``cli/parser.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from deployer.clients.client import Effective
from deployer.clients.pip import grammar
from deployer.clients.text import decode
from deployer.secrets import mask_url

ENVIRONMENT = ":env:"
_SECTIONS = (grammar.SECTION, "install", ENVIRONMENT)
_TRUE = frozenset({"y", "yes", "t", "true", "on", "1"})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One setting: ``section`` as in the file, or :data:`ENVIRONMENT`; ``source`` is shown to users."""

    section: str
    name: str
    value: str = field(repr=False)
    source: str
    path: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One file, or the environment. ``problem``: why every pip command fails on it.

    ``former``: its settings before deployer; ``written``: the index addresses that deployer wrote.
    """

    path: Path | None
    entries: tuple[Entry, ...] = ()
    problem: str = ""
    former: tuple[Entry, ...] = ()
    written: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class PipConfig:
    """All that pip reads, in rising precedence. ``ignored``: files that it does not read, and why."""

    layers: tuple[Layer, ...]
    ignored: Mapping[Path, str] = field(default_factory=dict)

    @property
    def entries(self) -> tuple[Entry, ...]:
        return tuple(entry for layer in self.layers for entry in layer.entries)

    def with_file(self, path: Path, content: bytes) -> PipConfig:
        """The configuration as it will be with ``content`` in the file ``path``."""
        entries = entries_of(decode(content), path, source=str(path))
        layers = (replace(e, entries=entries, problem="") if same_file(e.path, path) else e for e in self.layers)
        return replace(self, layers=tuple(layers))

    def items(self) -> dict[str, str]:
        """``section.name`` to value, as ``pip config list`` has it."""
        return {f"{entry.section}.{entry.name}": entry.value for entry in self.entries}

    def effective(self, key: str) -> Effective:
        """The value that ``pip install`` uses for ``key``, and its source."""
        winner = resolve(self.entries, key)
        return Effective(winner.value, winner.source) if winner else Effective()

    @property
    def key(self) -> str:
        winner = resolve(self.entries, "index-url")
        return f"[{winner.section}] {winner.name}" if winner and winner.section != ENVIRONMENT else ""

    def ignores(self, path: Path) -> str:
        return self.ignored.get(path, "")

    def value(self, key: str) -> str:
        return self.effective(key).value

    def masks(self, key: str, path: Path) -> tuple[str, ...]:
        """What overrides ``key`` of the file ``path``, one sentence each; a source of the same value does not."""
        if path in self.ignored:
            return (f"pip does not read {path}: {self.ignored[path]}",)
        ours = [entry for entry in self.entries if same_file(entry.path, path) and _sets(entry, key, grammar.SECTION)]
        others = [e for e in self.entries if e not in ours and any(_sets(e, key, s) for s in _SECTIONS)]
        if not ours:
            return ()
        hiding = [e for e in others if e.value != ours[-1].value and self._hides(e, ours, key)]
        return tuple(f"{entry.source} {_shown(entry)} overrides {key} in {path}" for entry in hiding)

    def _hides(self, other: Entry, ours: list[Entry], key: str) -> bool:
        pair = [entry for entry in self.entries if entry is other or entry in ours]
        return resolve(pair, key) not in ours

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes pip install from other indexes too, or fail."""
        found = [layer.problem for layer in self.layers if layer.problem]
        for key, means in _RISKS.items():
            winner = resolve(self.entries, key)
            if winner and (key != "no-index" or winner.value.lower() in _TRUE):
                found.append(f"{winner.source} {_shown(winner)}: {means}")
        return tuple(found)


_RISKS: Mapping[str, str] = {
    "extra-index-url": "pip asks that index too and takes the higher version, whoever uploaded it there",
    "find-links": "pip takes files from there too",
    "no-index": "pip asks no index at all",
}


def _shown(entry: Entry) -> str:
    # Only addresses and numbers are shown, without credentials.
    name = "" if entry.section == ENVIRONMENT else f"[{entry.section}] {entry.name} "
    return f"{name}({mask_url(entry.value)})" if entry.value else f"{name}(empty)"


def same_file(one: Path | None, other: Path) -> bool:
    try:
        return one is not None and (one == other or one.resolve() == other.resolve())
    except (OSError, RuntimeError):  # a self-referencing link, which pip ignores
        return False


def _sets(entry: Entry, key: str, section: str) -> bool:
    return entry.section == section and entry.name in grammar.OPTIONS.get(key, frozenset({key}))


def resolve(entries: Iterable[Entry], key: str) -> Entry | None:
    """The setting of ``key`` that ``pip install`` uses, of ``entries`` in rising precedence (``_update_defaults``).

    An empty value overrides a weaker one of the same section and name, and is then ignored itself.
    """
    merged: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        merged[entry.section, entry.name] = entry  # a key keeps its first place, as in pip's dict
    winner = None
    for section in _SECTIONS:
        for entry in merged.values():
            if entry.value and _sets(entry, key, section):
                winner = entry
    return winner


def entries_of(text: str, path: Path, *, source: str) -> tuple[Entry, ...]:
    return tuple(
        Entry(section=section, name=grammar.normalize(name), value=value, source=source, path=path)
        for section, items in grammar.parse(text).items()
        for name, value in items.items()
    )
