"""YAML without surprises: text in, a tree with line numbers out, and every doubt a problem with an address.

What is refused is what hides meaning or wastes memory: aliases, anchors, tags, duplicate keys, several documents,
deep nesting, large files. A scalar stays the text that was written; the field that it is for decides what it
means, so that neither ``no`` nor ``22:30`` nor ``1.10`` becomes what nobody wrote (YAML 1.1 would).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_NODES = 10_000
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})  # YAML 1.2, 10.3.2

Tree: TypeAlias = "str | list[Tree] | dict[str, Tree] | None"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong, and where: ``line`` counts from one, 0 where there is none."""

    message: str
    line: int = 0
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Document:
    """``lines`` maps the path of each key and each value to the line that it stands in."""

    tree: dict[str, Tree] = field(default_factory=dict)
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


def parse(data: bytes) -> Document:
    """Parse one document whose top is a mapping (an empty one is an empty mapping). Never raises."""
    if len(data) > MAX_BYTES:
        return _problem(f"larger than {MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _problem(f"not UTF-8 at byte {error.start}")
    node, problems = _compose(text)
    if problems or node is None:
        return Document(problems=problems)
    if not isinstance(node, yaml.MappingNode):
        return _problem("expected 'key: value' lines at the top", line=node.start_mark.line + 1)
    builder = _Builder()
    tree = builder.mapping(node, ())
    return Document(tree=tree, lines=builder.lines, problems=tuple(builder.problems))


def parse_value(text: str) -> Tree:
    """The value of a ``key=value``: a scalar, ``[a, b]`` or ``{a: b}``. Raises ValueError."""
    node, problems = _compose(text)
    builder = _Builder()
    value = builder.value(node, ()) if node is not None else None
    if problems or builder.problems:
        raise ValueError((*problems, *builder.problems)[0].message)
    return value


def _problem(message: str, *, line: int = 0) -> Document:
    return Document(problems=(Problem(message=message, line=line),))


def _compose(text: str) -> tuple[yaml.Node | None, tuple[Problem, ...]]:
    """The one node of ``text``, once its events have shown that building it is harmless."""
    problems: list[Problem] = []
    depth = documents = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=_LOADER)):
            if count > MAX_NODES:
                return None, (Problem(message=f"more than {MAX_NODES} keys and values"),)
            line = event.start_mark.line + 1
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                problems.append(Problem(message="anchors and aliases are not allowed", line=line, hint="write it out"))
            elif _tagged(event):
                problems.append(Problem(message=f"the tag {event.tag} is not allowed", line=line, hint="remove it"))
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.DocumentStartEvent):
                documents += 1
            if depth > MAX_DEPTH:
                return None, (Problem(message=f"nested deeper than {MAX_DEPTH} levels", line=line),)
            if documents > 1:
                return None, (Problem(message="more than one document", line=line, hint="remove the '---'"),)
            if len(problems) > 20:
                break
        if problems:
            return None, tuple(problems)
        return yaml.compose(text, Loader=_LOADER), ()
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        return None, (Problem(message=f"not YAML: {what}", line=mark.line + 1 if mark else 0),)


def _tagged(event: yaml.Event) -> bool:
    # A quoted scalar has no tag of its own; '!' alone means "not plain" and is as harmless as quotes.
    return getattr(event, "tag", None) not in (None, "!")


@dataclass
class _Builder:
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def value(self, node: yaml.Node, path: tuple[str, ...]) -> Tree:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            for number, item in enumerate(node.value):
                self.lines[*path, str(number)] = item.start_mark.line + 1
            return [self.value(item, (*path, str(number))) for number, item in enumerate(node.value)]
        plain = not node.style  # libyaml says "", PyYAML None
        return None if plain and node.value in _NULLS else str(node.value)

    def mapping(self, node: yaml.MappingNode, path: tuple[str, ...]) -> dict[str, Tree]:
        tree: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(message="a key must be a word", line=line))
                continue
            key = str(key_node.value)
            if key in tree:
                first = self.lines[*path, key]
                where = ".".join((*path, key))
                self.problems.append(
                    Problem(message=f"{where}: given twice, first in line {first}", line=line, hint="keep one of them")
                )
                continue
            self.lines[*path, key] = line
            tree[key] = self.value(value_node, (*path, key))
        return tree
