"""Requirements of rules from files: the entry ``file:PATH`` of a list stands for the lines of the file.

One requirement a line, as in a constraints file: empty lines, and what follows ``#``, are ignored. A file that can't be
read, or has no requirement, is a problem: a list that is cut short must not let in what it held back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployer.profile.crosschecks import SourceOf
from deployer.profile.problems import Problem, Source
from deployer.profile.strictyaml import KeyPath, dotted

if TYPE_CHECKING:
    from pydantic import TypeAdapter

MARK = "file:"
KEYS = ("min_age_exempt", "allow", "deny")
"""The keys of a mirror that are lists of requirements."""
LARGEST = 4 << 20
"""Bytes of the largest file."""
_COMMENT = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True)
class Layer:
    """What a list is with the lines of its files. ``sources``: the place of each entry that is no file's."""

    path: KeyPath
    words: list[object]
    sources: Mapping[KeyPath, Source]


def read(tree: Mapping[str, Any], source_of: SourceOf) -> tuple[list[Layer], list[Problem]]:
    """The lists of requirements in the tree of a profile that name files, and the problems with those. Never raises."""
    layers: list[Layer] = []
    problems: list[Problem] = []
    for path, entries in _naming_files(tree):
        words: list[object] = []
        sources: dict[KeyPath, Source] = {}
        for number, entry in enumerate(entries):
            source = source_of((*path, number))
            if is_file(entry):
                found, wrong = requirements(str(entry), key=dotted(path), source=source)
                words += found
                problems += wrong
                continue
            if source is not None:
                sources[(*path, len(words))] = source
            words.append(entry)
        layers.append(Layer(path, words, sources))
    return layers, problems


def _naming_files(tree: Mapping[str, Any]) -> Iterator[tuple[KeyPath, list[object]]]:
    indexes = tree.get("indexes")
    for name, index in indexes.items() if isinstance(indexes, Mapping) else ():
        for key in KEYS:
            found = index.get(key) if isinstance(index, Mapping) else None
            if isinstance(found, list) and any(map(is_file, found)):
                yield ("indexes", name, key), found


def is_file(entry: object) -> bool:
    """Whether an entry of a list names a file."""
    return isinstance(entry, str) and entry.startswith(MARK)


def requirements(entry: str, *, key: str, source: Source | None = None) -> tuple[list[str], list[Problem]]:
    """The requirements in the file that ``entry`` names, and the problems with it. Never raises.

    ``key``: that of the list, for messages. ``source``: the place of the entry.
    """
    path = entry.removeprefix(MARK)

    def problem(cause: str, hint: str) -> tuple[list[str], list[Problem]]:
        return [], [Problem(message=f"{key}: {cause}", hint=hint, source=source)]

    if not path.startswith(("/", "~/")):
        return problem(f"{entry[:80]!r} has no absolute path", "for example file:/etc/deployer/denied.txt")
    hint = f"write one requirement a line into it, or remove {entry}"
    try:
        with Path(path).expanduser().open("rb") as file:
            content = file.read(LARGEST + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return problem(f"{path} is not UTF-8", hint)
    except (OSError, ValueError, RuntimeError) as error:  # a null byte; a user without a home
        return problem(f"can't read {path}: {getattr(error, 'strerror', None) or error}", hint)
    if len(content) > LARGEST:
        return problem(f"{path} is larger than {LARGEST >> 20} MiB", "split it, or name patterns such as acme-*")
    found: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = _COMMENT.sub("", line).strip()
        if word and (cause := _cause(word)):
            where = Source(where=path, line=number)
            problems.append(Problem(message=cause, hint=f"correct line {number}", source=where))
        elif word:
            found.append(word)
    if not found and not problems:
        return problem(f"{path} has no requirement", hint)
    return found, problems


@cache
def _rule() -> TypeAdapter[str]:
    from pydantic import TypeAdapter

    from deployer.profile.types import Rule

    return TypeAdapter(Rule)


def _cause(word: str) -> str:
    """Why a line is no requirement; empty for one that is."""
    from pydantic import ValidationError

    from deployer.profile.validation import told

    try:
        _rule().validate_python(word)
    except ValidationError as error:
        return told(error.errors()[0], lambda path: None).message.removeprefix(": ")
    return ""
