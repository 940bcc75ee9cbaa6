"""From a profile's name to a checked profile: find, read, merge, and know where each value came from.

Merge order: defaults < what ``extends:`` names < the profile < options and variables. Mappings merge key by key, lists
are replaced. All problems are told at once, each with file and line.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from deployer.errors import ProfileError
from deployer.profile import Profile
from deployer.resources import profiles_dir
from deployer.secrets import mask_url
from deployer.strictyaml import MAX_BYTES, Document, Problem, Tree, parse, parse_value

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

KeyPath = tuple[str, ...]
SUFFIXES = (".yaml", ".yml")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_CHAIN = 10


@dataclass(frozen=True)
class Override:
    """A value put over the profile: ``key`` is dotted (``network.port``), ``source`` says who gave it."""

    key: str
    value: object
    source: str

    @property
    def path(self) -> KeyPath:
        return tuple(self.key.split("."))


@dataclass(frozen=True, kw_only=True)
class ProfileFile:
    name: str
    path: Path
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A checked profile. ``sources``: dotted key to ``file:line`` or option, for every value that is not a default."""

    profile: Profile
    name: str
    sources: Mapping[str, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()


def user_profiles() -> Path:
    """Where a user's own profiles are (``DEPLOYER_CONFIG_DIR``, else the platform's configuration directory)."""
    if override := os.environ.get("DEPLOYER_CONFIG_DIR"):
        return Path(override) / "profiles"
    from platformdirs import user_config_path

    return user_config_path("deployer", appauthor=False) / "profiles"


def available(user_dir: Path | None = None) -> tuple[ProfileFile, ...]:
    """Every profile that can be named: a user's own come first and hide shipped ones of the same name."""
    found: dict[str, ProfileFile] = {}
    for directory in (user_dir or user_profiles(), profiles_dir()):
        for path in sorted(directory.glob("*")) if directory.is_dir() else ():
            if path.suffix in SUFFIXES:
                text = parse(path.read_bytes()[: MAX_BYTES + 1]).tree.get("description")
                description = text if isinstance(text, str) else ""
                found.setdefault(path.stem, ProfileFile(name=path.stem, path=path, description=description))
    return tuple(sorted(found.values(), key=lambda profile: profile.name))


def parse_set(text: str) -> Override:
    """``key=value`` of ``--set``; the value is a scalar, ``[a, b]`` or ``{a: b}``. Raises ProfileError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ProfileError(f"--set {mask_url(text)}: expected key=value", hint="for example --set network.port=4000")
    try:
        return Override(key.strip(), parse_value(value), f"--set {key.strip()}")
    except ValueError as error:
        raise ProfileError(f"--set {key}: {error}", hint="quote the value if it holds : { [ or #") from None


def load(ref: str = "default", *, overrides: Sequence[Override] = (), user_dir: Path | None = None) -> Loaded:
    """Load the profile ``ref`` (a name, or a path with a slash or ending in .yaml) and check it.

    Raises ProfileError with every problem, each as ``file:line: key: cause``.
    """
    chain = _Chain(user_dir or user_profiles())
    chain.follow(ref)
    chain.stop_at_problems()
    merged: dict[str, Tree] = {"indexes": _default_indexes()}
    sources: dict[KeyPath, str] = {}
    for path, document in reversed(chain.documents):
        _merge(merged, {k: v for k, v in document.tree.items() if k not in ("extends", "description")})
        shown = _shown(path)
        sources.update({keys: f"{shown}:{line}" for keys, line in document.lines.items()})
    for override in overrides:
        _merge(merged, _nested(override.path, override.value))
        sources[override.path] = override.source
    _drop_nothing(merged, "indexes", "users")
    profile = _validated(merged, sources)
    return Loaded(
        profile=profile,
        name=Path(ref).stem if _is_path(ref) else ref,
        sources={".".join(keys): source for keys, source in sources.items()},
        files=tuple(path for path, _ in chain.documents),
    )


def _default_indexes() -> dict[str, Tree]:
    return {name: index.model_dump(exclude_none=True) for name, index in Profile().indexes.items()}


def _drop_nothing(tree: dict[str, Tree], *sections: str) -> None:
    """``root/pypi: null`` takes an index away that a profile below declares."""
    for section in sections:
        entries = tree.get(section)
        if isinstance(entries, dict):
            for name in [name for name, value in entries.items() if value is None]:
                del entries[name]


def _is_path(ref: str) -> bool:
    return "/" in ref or ref.endswith(SUFFIXES)


def _shown(path: Path) -> str:
    return path.name if path.is_relative_to(profiles_dir()) else str(path)


@dataclass
class _Chain:
    """The profile and all that it extends, nearest first."""

    user_dir: Path
    documents: list[tuple[Path, Document]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def follow(self, ref: str) -> None:
        path = self._find(ref, said_by="")
        while path is not None:
            document = self._read(path)
            self.documents.append((path, document))
            for problem in document.problems:
                self._add(f"{_shown(path)}{_line(problem)}: {problem.message}", problem.hint)
            path = self._parent(path, document)

    def _parent(self, path: Path, document: Document) -> Path | None:
        parent = document.tree.get("extends")
        if parent is None:
            return None
        said_by = f"{_shown(path)}:{document.lines.get(('extends',), 1)}: extends: "
        if not isinstance(parent, str):
            self._add(f"{said_by}expected the name of one profile", "extends: default")
            return None
        found = self._find(parent, said_by=said_by, relative_to=path)
        if found is not None and (any(found == seen for seen, _ in self.documents) or len(self.documents) > _MAX_CHAIN):
            self._add(f"{said_by}{parent!r} leads back to itself", "remove one of the extends:")
            return None
        return found

    def _find(self, ref: str, *, said_by: str, relative_to: Path | None = None) -> Path | None:
        if _is_path(ref):
            path = Path(ref).expanduser()
            if relative_to is not None and not path.is_absolute():
                path = relative_to.parent / path
            if not path.is_file():
                self._add(f"{said_by}there is no profile file {path}", "deployer profiles")
                return None
            return path.resolve()
        if _NAME.fullmatch(ref):
            for directory in (self.user_dir, profiles_dir()):
                for suffix in SUFFIXES:
                    path = (directory / (ref + suffix)).resolve()
                    # A user's own `default` that extends `default` means the shipped one.
                    if path.is_file() and path != relative_to:
                        return path
        names = [profile.name for profile in available(self.user_dir)]
        self._add(f"{said_by}there is no profile named {ref!r}", _did_you_mean(ref, names) or "deployer profiles")
        return None

    def _read(self, path: Path) -> Document:
        try:
            with path.open("rb") as stream:
                return parse(stream.read(MAX_BYTES + 1))
        except OSError as error:
            return Document(problems=(Problem(message=f"can't be read: {error.strerror}"),))

    def _add(self, problem: str, hint: str) -> None:
        self.problems.append(problem)
        self.hints.append(hint)

    def stop_at_problems(self) -> None:
        if self.problems:
            raise _error(list(zip(self.problems, self.hints, strict=True)))


def _line(problem: Problem) -> str:
    return f":{problem.line}" if problem.line else ""


def _error(problems: Sequence[tuple[str, str]]) -> ProfileError:
    """One problem as it is; several as a count and a line each, with its cure."""
    if len(problems) == 1:
        message, hint = problems[0]
        return ProfileError(message, hint=hint or "profiles/reference.yaml has every key with its meaning")
    lines = tuple(f"{message} ({hint})" if hint else message for message, hint in problems)
    return ProfileError(
        f"{len(problems)} problems in the profile",
        hint="profiles/reference.yaml has every key with its meaning",
        details=lines,
    )


def _merge(into: dict[str, Tree], over: Mapping[str, Any]) -> None:
    """Put ``over`` over ``into``: mappings key by key, anything else replaced."""
    for key, value in over.items():
        below = into.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping) and not _retyped(below, value):
            _merge(below, value)
        elif isinstance(value, Mapping):
            fresh: dict[str, Tree] = {}
            _merge(fresh, value)
            into[key] = fresh
        else:
            into[key] = value


def _retyped(below: Mapping[str, Any], over: Mapping[str, Any]) -> bool:
    """An index of another type has other fields: none of the old ones means anything for it."""
    return "type" in below and "type" in over and below["type"] != over["type"]


def _nested(path: KeyPath, value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value  # type: ignore[return-value]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Dotted keys and values of the leaves; an empty mapping is a leaf."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


# Checking


def _validated(tree: Mapping[str, Tree], sources: Mapping[KeyPath, str]) -> Profile:
    from pydantic import ValidationError

    problems: list[tuple[str, str]] = []
    profile = None
    try:
        profile = Profile.model_validate(tree)
    except ValidationError as error:
        problems += [_told(details, sources) for details in error.errors(include_url=False)]
    # What can be said without a valid profile is said all the same, so that nobody mends one line at a time.
    problems += _crosschecks(tree, sources)
    if problems or profile is None:
        raise _error(list(dict.fromkeys(problems)))
    return profile


def _source(path: KeyPath, sources: Mapping[KeyPath, str]) -> str:
    """Where ``path`` was given, or the nearest thing above it."""
    for length in range(len(path), 0, -1):
        if path[:length] in sources:
            return sources[path[:length]] + ": "
    return ""


def _told(details: ErrorDetails, sources: Mapping[KeyPath, str]) -> tuple[str, str]:
    """One problem of pydantic's as (``file:line: key: cause``, cure)."""
    # Members of a union and "[key]" are pydantic's own steps, not the operator's.
    path = tuple(str(step) for step in details["loc"] if not _internal(step))
    cause, hint = _cause(details, path)
    return f"{_source(path, sources)}{'.'.join(path)}: {cause}", hint


def _internal(step: object) -> bool:
    return step in {"[key]", "ipv4address", "ipv6address"}


def _cause(details: ErrorDetails, path: KeyPath) -> tuple[str, str]:
    given = details.get("input")
    shown = repr(mask_url(given))[:200] if isinstance(given, str) else type(given).__name__
    context = details.get("ctx") or {}
    match details["type"]:
        case "extra_forbidden":
            return "unknown key", _did_you_mean(path[-1], _keys_at(path[:-1]))
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", str(context.get("expected", "")))
            return f"expected {_either(allowed)}, not {shown}", _did_you_mean(str(given), allowed)
        case "int_parsing" | "int_type" | "int_from_float":
            return f"expected a whole number, not {shown}", ""
        case "float_parsing" | "float_type":
            return f"expected a number, not {shown}", ""
        case "bool_parsing" | "bool_type":
            return f"expected true or false, not {shown}", ""
        case "greater_than_equal":
            return f"must be at least {context.get('ge')}, not {shown}", ""
        case "less_than_equal":
            return f"must be at most {context.get('le')}, not {shown}", ""
        case "string_pattern_mismatch":
            return f"{shown} is not allowed here", _FORMS.get(path[-1] if path else "", "")
        case "string_too_long":
            return f"longer than {context.get('max_length')} characters", ""
        case "ip_v4_address" | "ip_v6_address" | "ip_any_address":
            return f"expected an IP address, not {shown}", "for example 127.0.0.1 or ::1"
        case "string_type":
            return "expected a text", ""
        case "tuple_type" | "list_type":
            return "expected a list", "for example [root/pypi]"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "expected 'key: value' lines below it", ""
        case "missing":
            return "is missing", "type: mirror, or type: stage" if path[-1] == "type" else ""
        case "value_error":
            return str(details["msg"]).removeprefix("Value error, "), ""
        case _:
            return str(details["msg"])[:1].lower() + str(details["msg"])[1:], ""


_FORMS = {
    "ref": "letters, digits and . _ / : @ -, starting with a letter or digit",
    "base": "letters, digits and . _ / : @ -, starting with a letter or digit",
    "url": "an address that starts with http:// or https:// and has no spaces",
    "memory": "a number with an optional unit b, k, m or g: 256m",
    "restart": "no, always, unless-stopped, on-failure or on-failure:5",
    "user": "numbers: uid:gid",
    "index": "user/name",
    "digest": "sha256: and 64 hexadecimal digits",
}


def _either(words: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else "something else"


def _did_you_mean(word: str, choices: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def _keys_at(path: KeyPath) -> tuple[str, ...]:
    """The keys that the models know at ``path``."""
    from pydantic import BaseModel

    current: Any = Profile
    for step in path:
        if isinstance(current, type) and issubclass(current, BaseModel):
            known = current.model_fields.get(step)
            current = known.annotation if known else None
        elif models := [m for m in get_args(current) if isinstance(m, type) and issubclass(m, BaseModel)]:
            current = models[0]  # a mapping of names to models
        else:
            return ()
        if models := [m for m in get_args(current) if isinstance(m, type) and issubclass(m, BaseModel)]:
            # Stay on the mapping: its next step is a name.
            continue
    if isinstance(current, type) and issubclass(current, BaseModel):
        extends = ("extends", "description") if current is Profile else ()
        return (*current.model_fields, *extends)
    return ()


def _crosschecks(tree: Mapping[str, Tree], sources: Mapping[KeyPath, str]) -> list[tuple[str, str]]:
    """What two places of the text must agree on; tolerant of what else is wrong."""
    indexes, users = (tree[key] if isinstance(tree.get(key), dict) else {} for key in ("indexes", "users"))
    return [
        *_unknown_bases(indexes, sources),
        *_circles(indexes, sources),
        *_unknown_owners(indexes, users, sources),
        *_unknown_client_index(tree.get("clients"), indexes, sources),
    ]


def _bases(index: object) -> list[str]:
    bases = index.get("bases") if isinstance(index, dict) else None
    return [base for base in bases if isinstance(base, str)] if isinstance(bases, list) else []


def _unknown_bases(indexes: Mapping[str, Any], sources: Mapping[KeyPath, str]) -> Iterator[tuple[str, str]]:
    for name, index in indexes.items():
        for number, base in enumerate(_bases(index)):
            if base not in indexes:
                where = ("indexes", name, "bases")
                source = _source((*where, str(number)), sources)
                cure = _did_you_mean(base, indexes) or "declare it under indexes:"
                yield f"{source}{'.'.join(where)}: unknown index {mask_url(base)!r}", cure


def _circles(indexes: Mapping[str, Any], sources: Mapping[KeyPath, str]) -> Iterator[tuple[str, str]]:
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter({name: _bases(index) for name, index in indexes.items()}).prepare()
    except CycleError as error:
        circle = error.args[1]
        source = _source(("indexes", circle[0], "bases"), sources)
        yield f"{source}indexes: the bases form a circle: {' -> '.join(circle)}", "take one of them out of its bases"


def _unknown_owners(
    indexes: Mapping[str, Any], users: Mapping[str, Any], sources: Mapping[KeyPath, str]
) -> Iterator[tuple[str, str]]:
    for name in indexes:
        owner, slash, _ = name.partition("/")
        if slash and owner != "root" and owner not in users:
            cure = _did_you_mean(owner, [*users, "root"]) or f"add {owner}: {{}} under users:"
            yield f"{_source(('indexes', name), sources)}indexes.{name}: unknown user {owner!r}", cure


def _unknown_client_index(
    clients: object, indexes: Mapping[str, Any], sources: Mapping[KeyPath, str]
) -> Iterator[tuple[str, str]]:
    given = clients.get("index") if isinstance(clients, dict) else None
    wanted = given if isinstance(given, str) else Profile().clients.index
    if wanted not in indexes:
        source = _source(("clients", "index"), sources)
        cure = _did_you_mean(wanted, indexes) or "declare it under indexes:, or name one of " + ", ".join(
            sorted(indexes)
        )
        yield f"{source}clients.index: unknown index {wanted!r}", cure


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a profile file, for editors; kept as ``profiles/schema.json``."""
    made = Profile.model_json_schema()
    made["properties"] = {
        "extends": {"type": "string", "description": "The profile that this one changes."},
        "description": {"type": "string", "description": "One line for the list of profiles."},
        **made["properties"],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "deployer profile"}
