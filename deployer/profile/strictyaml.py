"""Strict YAML: text to a tree with line numbers, and problems with their place.

Refused are aliases, anchors, tags, merge keys, duplicate keys, several documents, deep nesting and large files. A
scalar stays the text that was written, and its field decides its type: YAML 1.1 would change ``no``, ``22:30`` and
``1.10``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from deployer.profile.problems import Problem, Source, masked

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 10_000
_MAX_PROBLEMS = 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})  # YAML 1.2, 10.3.2

Tree: TypeAlias = "str | list[Tree] | dict[str, Tree] | None"
KeyPath: TypeAlias = tuple[str | int, ...]

_CURES = {
    "found character that cannot start any token": "indent with spaces, and quote a value that starts with @, ` or %",
    "did not find expected alphabetic or numeric character": "quote a value that starts with * or &",
    "mapping values are not allowed in this context": "quote a value that holds ': '",
    "could not find expected ':'": "a line needs 'key: value', and more indentation than the key that it belongs to",
    "did not find expected key": "keys of one mapping start in the same column",
}
"""libyaml's messages for common mistakes, and their cures."""


@dataclass(frozen=True, kw_only=True)
class Document:
    """``sources`` has the line of each key, and of each item of a list, by its path."""

    tree: Mapping[str, Tree] = field(default_factory=dict)
    sources: Mapping[KeyPath, Source] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def parse(data: bytes, *, name: str) -> Document:
    """Parse one document whose top is a mapping. Never raises; ``name``: the file in messages."""
    if len(data) > MAX_BYTES:
        return _refused(f"larger than {MAX_BYTES} bytes", Source(where=name))
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return _refused("not UTF-8", Source(where=name, line=line), "save the file with this encoding")
    node, problems = _compose(text, name)
    if problems:
        return Document(problems=problems)
    if node is None or (isinstance(node, yaml.ScalarNode) and _value(node) is None):
        return _refused("is empty", Source(where=name), "extends: default")
    if not isinstance(node, yaml.MappingNode):
        return _refused("expected 'key: value' lines at the top", _source(node, name))
    builder = _Builder(name)
    tree = builder.mapping(node, ())
    return Document(tree=tree, sources=builder.sources, problems=tuple(builder.problems))


def parse_value(text: str, *, name: str) -> Tree:
    """Parse the value of a ``key=value``: a scalar, ``[a, b]`` or ``{a: b}``; empty is an empty text.

    Raises ValueError with the first problem.
    """
    if not text:
        return ""
    node, problems = _compose(text, name)
    builder = _Builder(name)
    value = builder.value(node, ()) if node is not None else None
    if found := (*problems, *builder.problems):
        raise ValueError(found[0].message)
    return value


def _refused(message: str, source: Source, hint: str = "") -> Document:
    return Document(problems=(Problem(message=message, source=source, hint=hint),))


def _source(node: yaml.Node | yaml.Event, name: str) -> Source:
    mark = node.start_mark
    return Source(where=name, line=mark.line + 1 if mark else 1)


def _compose(text: str, name: str) -> tuple[yaml.Node | None, tuple[Problem, ...]]:
    """Compose the node of ``text``, after its events were checked."""
    try:
        if problems := _harms(text, name):
            return None, problems
        return yaml.compose(text, Loader=_LOADER), ()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        # The reader's complaint about a character has no mark and spreads over two lines.
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        source = Source(where=name, line=mark.line + 1 if mark else 0)
        return None, (Problem(message=f"not YAML: {masked(what)}", source=source, hint=_CURES.get(what, "")),)


def _harms(text: str, name: str) -> tuple[Problem, ...]:
    problems: list[Problem] = []
    depth = documents = 0
    for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
        source = _source(event, name)
        match event:
            case yaml.CollectionStartEvent():
                depth += 1
            case yaml.CollectionEndEvent():
                depth -= 1
            case yaml.DocumentStartEvent():
                documents += 1
        if count > MAX_NODES:
            return (Problem(message=f"more than {MAX_NODES} keys and values", source=source),)
        if depth > MAX_DEPTH:
            return (Problem(message=f"nested deeper than {MAX_DEPTH} levels", source=source),)
        if documents > 1:
            return (Problem(message="more than one document", source=source, hint="remove the '---'"),)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            cure = "write the value out, or quote it if it starts with * or &"
            problems.append(Problem(message="anchors and aliases are not allowed", source=source, hint=cure))
        # A quoted scalar has no tag of its own; '!' alone means "not plain" and is as harmless as quotes.
        elif (tag := getattr(event, "tag", None)) not in (None, "!"):
            message = f"the tag {masked(str(tag))[:80]} is not allowed"
            problems.append(Problem(message=message, source=source, hint="remove the tag, or quote the value"))
        if len(problems) >= _MAX_PROBLEMS:
            break
    return tuple(problems)


def _value(node: yaml.ScalarNode) -> str | None:
    # A plain scalar has the style '' from libyaml and None from PyYAML's own parser.
    return None if not node.style and node.value in _NULLS else str(node.value)


@dataclass
class _Builder:
    name: str
    sources: dict[KeyPath, Source] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value(self, node: yaml.Node, path: KeyPath) -> Tree:
        match node:
            case yaml.MappingNode():
                return self.mapping(node, path)
            case yaml.SequenceNode():
                for number, item in enumerate(node.value):
                    self.sources[*path, number] = _source(item, self.name)
                return [self.value(item, (*path, number)) for number, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return _value(node)
            case _:
                raise TypeError(f"a node of YAML that none composes: {node!r}")

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Tree]:
        tree: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            source = _source(key_node, self.name)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(message="a key must be a word", source=source))
                continue
            key = str(key_node.value)
            if key == "<<":
                cure = "use extends:, or write the keys out"
                self.problems.append(Problem(message="merge keys are not allowed", source=source, hint=cure))
                continue
            if key in tree:
                first = self.sources[*path, key].line
                message = f"{dotted((*path, key))}: given twice, first in line {first}"
                self.problems.append(Problem(message=message, source=source, hint="keep one of them"))
                continue
            self.sources[*path, key] = source
            tree[key] = self.value(value_node, (*path, key))
        return tree


def dotted(path: KeyPath) -> str:
    """Format a path for messages: ``indexes.root/dev.bases[0]``."""
    steps = [f"[{step}]" if isinstance(step, int) else f".{masked(step)[:160]}" for step in path]
    return "".join(steps).removeprefix(".")
