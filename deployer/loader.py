"""From a profile's name to a checked profile: find, read, merge, and know where each value came from.

Merge order: defaults < what ``extends:`` names < the profile < options and variables. Mappings merge key by key, lists
are replaced. All problems are told at once, each with file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployer.errors import ProfileError
from deployer.problems import Problem, Source, did_you_mean, masked, profile_error, shown
from deployer.profile import Profile
from deployer.resources import profiles_dir
from deployer.strictyaml import MAX_BYTES, Document, KeyPath, Tree, dotted, parse, parse_value
from deployer.validation import ENTRIES, HEAD, validate

SUFFIXES = (".yaml", ".yml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_MAX_CHAIN = 10
_SCALARS = ("engine", "data")


@dataclass(frozen=True)
class Override:
    """A value put over the profile: ``key`` is dotted (``network.port``), ``source`` says who gave it."""

    key: str
    value: object
    source: str

    @property
    def path(self) -> KeyPath:
        """``key`` in steps. Names of users and indexes may hold dots: what follows the last one is a field, except
        that a mapping or nothing is given to a whole entry."""
        section, _, rest = self.key.partition(".")
        if section not in ENTRIES or not rest:
            return tuple(self.key.split("."))
        name, dot, last = rest.rpartition(".")
        known = last in ENTRIES[section].model_fields
        whole = self.value is None or isinstance(self.value, Mapping)
        return (section, name, last) if dot and (known or not whole) else (section, rest)


@dataclass(frozen=True, kw_only=True)
class ProfileFile:
    name: str
    path: Path
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checked profile. ``sources``: dotted key to ``file:line`` or option, for every value that is not a default.
    ``files``: the profile's own first, then what it extends. ``overrides``: what was put over them."""

    profile: Profile
    name: str
    sources: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    ref: str = ""
    overrides: tuple[Override, ...] = ()


def user_profiles() -> Path:
    """Where a user's own profiles are (``DEPLOYER_CONFIG_DIR``, else the platform's configuration directory)."""
    if override := os.environ.get("DEPLOYER_CONFIG_DIR"):
        return Path(override) / "profiles"
    from platformdirs import user_config_path

    return user_config_path("deployer", appauthor=False) / "profiles"


def available(user_dir: Path | None = None) -> tuple[ProfileFile, ...]:
    """Every profile that can be named: a user's own hide shipped ones of the same name."""
    found: dict[str, ProfileFile] = {}
    for directory in (user_dir or user_profiles(), profiles_dir()):
        for path in _files(directory):
            description = _read(path, str(path)).tree.get("description")
            found.setdefault(
                path.stem,
                ProfileFile(name=path.stem, path=path, description=description if isinstance(description, str) else ""),
            )
    return tuple(sorted(found.values(), key=lambda profile: profile.name))


def parse_set(text: str) -> Override:
    """The override that ``--set key=value`` asks for; the value is YAML on one line. Raises ProfileError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    source = f"--set {masked(key)}"
    if not equals or not key:
        raise ProfileError(f"--set {masked(text)}: expected key=value", hint="for example --set network.port=4000")
    try:
        return Override(key, parse_value(value, name=source), source)
    except ValueError as error:
        raise ProfileError(f"{source}: {error}", hint="quote the value if it holds : { [ or #") from None


def load(ref: str = "default", *, overrides: Sequence[Override] = (), user_dir: Path | None = None) -> Loaded:
    """Load the profile ``ref`` (a name, or a path with a slash or ending in .yaml) and check it.

    Raises ProfileError with every problem, each as ``file:line: key: cause``.
    """
    chain = _Chain(user_dir or user_profiles())
    chain.follow(ref)
    stack = _Stack()
    for document in reversed(chain.documents):
        said = {key: value for key, value in document.tree.items() if key not in HEAD}
        stack.put(said, document.sources)
    for override in overrides:
        tree = _nested(override.path, override.value)
        stack.put(tree, {path: Source(where=override.source) for path, _ in _values(tree)})
    profile, problems = validate(stack.tree, stack.source_of, partial=bool(chain.problems))
    problems = [*chain.problems, *([] if chain.problems else stack.problems), *problems]
    if problems or profile is None:
        raise profile_error(problems)
    return Loaded(
        profile=profile,
        name=Path(ref).stem if _is_path(ref) else ref,
        sources=stack.leaf_sources(),
        files=tuple(chain.paths),
        ref=reference(ref),
        overrides=tuple(overrides),
    )


def reference(ref: str) -> str:
    """What means the profile ``ref`` from every directory."""
    try:
        return str(Path(ref).expanduser().resolve()) if _is_path(ref) else ref
    except RuntimeError:  # ~someone who is not there
        return ref


# Finding and reading


def _is_path(ref: str) -> bool:
    return "/" in ref or ref.endswith(SUFFIXES)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, a directory that may not be searched
        return False


def _files(directory: Path) -> Iterator[Path]:
    try:
        listed = sorted(directory.iterdir())
    except OSError:
        return
    yield from (path for path in listed if path.suffix in SUFFIXES and _NAME.fullmatch(path.stem) and _is_file(path))


def _read(path: Path, name: str) -> Document:
    try:
        with path.open("rb") as stream:
            return parse(stream.read(MAX_BYTES + 1), name=name)
    except OSError as error:
        problem = Problem(message=f"can't be read: {error.strerror}", source=Source(where=name))
        return Document(problems=(problem,))


@dataclass
class _Chain:
    """The profile and all that it extends, nearest first."""

    user_dir: Path
    paths: list[Path] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def follow(self, ref: str) -> None:
        found = self._find(ref, None, None)
        while found is not None:
            path, name = found
            document = _read(path, name)
            self.paths.append(path)
            self.documents.append(document)
            self.problems += document.problems
            found = self._parent(path, document)

    def _parent(self, path: Path, document: Document) -> tuple[Path, str] | None:
        source = document.sources.get(("extends",))
        description = document.tree.get("description")
        if not isinstance(description, str | None):
            where = document.sources.get(("description",))
            self._add("description: expected a text", "description: what it is for", where)
        parent = document.tree.get("extends")
        if isinstance(parent, str) and len(self.paths) < _MAX_CHAIN:
            return self._find(parent, path, source)
        if isinstance(parent, str):
            self._add(f"extends: more than {_MAX_CHAIN} profiles build on each other", "use fewer", source)
        elif parent is not None:
            self._add("extends: expected the name of one profile", "extends: default", source)
        return None

    def _find(self, ref: str, child: Path | None, source: Source | None) -> tuple[Path, str] | None:
        """The file that ``ref`` means and what messages call it, or ``None`` and a problem."""
        found = self._by_path(ref, child) if _is_path(ref) else self._by_name(ref, child)
        extends = "extends: " if child else ""
        if not found:
            self._add(f"{extends}there is no profile {shown(ref)}", self._instead(ref), source)
            return None
        # A name that is in the chain already means another file of that name: a user's own `default` that extends
        # `default` means the shipped one.
        for path, name in found:
            if path not in self.paths:
                return path, name
        self._add(f"{extends}{shown(ref)} leads back to itself", "take one of the extends: away", source)
        return None

    def _by_path(self, ref: str, child: Path | None) -> list[tuple[Path, str]]:
        try:
            path = Path(ref).expanduser()
        except RuntimeError:  # ~someone who is not there
            return []
        path = child.parent / path if child else path
        if not _is_file(path):
            return []
        found = path.resolve()
        return [(found, masked(str(found if child else path)))]

    def _by_name(self, ref: str, child: Path | None) -> list[tuple[Path, str]]:
        # What is shipped builds on what is shipped, so that a user's own `default` may extend any of it.
        shipped = child is not None and child.parent == profiles_dir()
        directories = (profiles_dir(),) if shipped else (self.user_dir, profiles_dir())
        paths = [directory / (ref + suffix) for directory in directories for suffix in SUFFIXES]
        named = paths if _NAME.fullmatch(ref) else []
        return [
            (path.resolve(), path.name if path.parent == profiles_dir() else str(path))
            for path in named
            if _is_file(path)
        ]

    def _instead(self, ref: str) -> str:
        names = [profile.name for profile in available(self.user_dir)]
        if "://" in ref:
            return "a profile is a name or a file, not an address"
        return did_you_mean(Path(ref).stem if _is_path(ref) else ref, names) or "`deployer profiles` lists them"

    def _add(self, message: str, hint: str, source: Source | None) -> None:
        self.problems.append(Problem(message=message, hint=hint, source=source))


# Merging


class _Stack:
    """Layers put over the defaults, and for each path who gave it last."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {"indexes": _default_indexes()}
        self.problems: list[Problem] = []
        self._sources: dict[KeyPath, Source] = {}

    def put(self, tree: Mapping[str, object], sources: Mapping[KeyPath, Source]) -> None:
        self._sources.update(sources)
        layer = {key: value for key, value in tree.items() if _says_something(key, value)}
        indexes, users = layer.get("indexes"), layer.get("users")
        if isinstance(users, Mapping):
            layer["users"] = {name: {} if value is None else value for name, value in users.items()}
        if isinstance(indexes, Mapping):
            for name in [name for name, value in indexes.items() if value is None]:
                self._take_away(name)
            layer["indexes"] = {name: value for name, value in indexes.items() if value is not None}
        _merge(self.tree, layer)

    def _take_away(self, name: str) -> None:
        """``root/pypi: null`` takes an index away that a layer below declares."""
        below = self.tree.get("indexes")
        if not isinstance(below, dict) or below.pop(name, None) is None:
            path: KeyPath = ("indexes", name)
            hint = did_you_mean(name, below or ()) or "type: mirror, or type: stage"
            message = f"{dotted(path)}: has nothing below it, and no such index is there to take away"
            self.problems.append(Problem(message=message, hint=hint, source=self.source_of(path)))

    def source_of(self, path: KeyPath) -> Source | None:
        """Who gave ``path``, or the nearest thing above it."""
        for length in range(len(path), 0, -1):
            source = self._sources.get(path[:length])
            if source is not None and not self._replaced(path[:length], source):
                return source
        return None

    def _replaced(self, path: KeyPath, source: Source) -> bool:
        """The line of a list's item is worth nothing once another layer has replaced the list."""
        above = self._sources.get(path[:-1])
        return isinstance(path[-1], int) and above is not None and above.where != source.where

    def leaf_sources(self) -> dict[str, str]:
        return {
            ".".join(map(str, path)): str(self._sources[path])
            for path, value in _values(self.tree)
            if path in self._sources and not isinstance(value, Mapping)
        }


def _default_indexes() -> dict[str, Tree]:
    return {name: index.model_dump(exclude_none=True) for name, index in Profile().indexes.items()}


def _says_something(key: str, value: object) -> bool:
    """A section with nothing below it (all of it commented out, say) says nothing."""
    return value is not None or key in _SCALARS or key not in Profile.model_fields


def _merge(into: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Put ``over`` over ``into``: mappings key by key, anything else replaced."""
    for key, value in over.items():
        below = into.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping) and not _retyped(below, value):
            _merge(below, value)
        elif isinstance(value, Mapping):
            into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def _retyped(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """An index of another type has other fields: none of the old ones means anything for it."""
    return "type" in below and "type" in over and below["type"] != over["type"]


def _nested(path: KeyPath, value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]


def _values(tree: Mapping[str, object], prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Path and value of every mapping and leaf below ``tree``."""
    for key, value in tree.items():
        yield (*prefix, key), value
        if isinstance(value, Mapping):
            yield from _values(value, (*prefix, key))


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Dotted keys and values of the leaves; an empty mapping is a leaf."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
