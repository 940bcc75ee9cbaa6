"""The build file, with the index added to its steps. Nothing else of it changes.

Rules of https://docs.docker.com/reference/dockerfile/: parser directives, line continuation, comments between continued
lines, here-documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_DIRECTIVE = re.compile(r"#\s*([A-Za-z]+)\s*=\s*(\S+)\s*$")
_INSTRUCTION = re.compile(r"(\s*)([A-Za-z]+)(?=\s|$)")
_HEREDOC = re.compile(r"<<(-?)\s*([\"']?)([A-Za-z_][A-Za-z0-9_]*)\2")
_MOUNTED = re.compile(r"--mount=\S*\b(?:target|dst|destination|env)=([^,\s]+)")
_WITH_HEREDOCS = frozenset({"RUN", "COPY", "ADD"})


@dataclass(frozen=True, kw_only=True)
class Secret:
    """What steps can read while they run: the id of the builder's secret, and where steps find it, which is the path of
    a file (``target``) or the name of a variable."""

    id: str
    target: str = ""
    variable: str = ""

    @property
    def place(self) -> str:
        return self.target or self.variable

    @property
    def flag(self) -> str:
        where = f"target={self.target},mode=0444" if self.target else f"env={self.variable}"
        return f"--mount=type=secret,id={self.id},{where},required=true"


def with_secrets(text: str, secrets: Sequence[Secret]) -> str:
    """Mount ``secrets`` in each ``RUN``, except where something else is mounted."""

    def mounted(keyword: str, lines: list[str]) -> list[str]:
        if keyword != "RUN":
            return lines
        taken = {target.strip("\"'") for line in lines for target in _MOUNTED.findall(line)}
        flags = [secret.flag for secret in secrets if secret.place not in taken]
        return [_INSTRUCTION.sub(lambda match: " ".join((match[0], *flags)), lines[0], count=1), *lines[1:]]

    return _changed(text, mounted)


def with_arguments(text: str, names: Sequence[str]) -> str:
    """Declare the build arguments ``names`` in each stage."""

    def declared(keyword: str, lines: list[str]) -> list[str]:
        if keyword != "FROM":
            return lines
        last = lines[-1] if lines[-1].endswith("\n") else f"{lines[-1]}\n"
        return [*lines[:-1], last, *(f"ARG {name}\n" for name in names)]

    return _changed(text, declared)


def directives(text: str) -> str:
    """The parser directives at the top, of which one may name another parser."""
    lines = text.splitlines(keepends=True)
    count = next((at for at, line in enumerate(lines) if _DIRECTIVE.match(line.strip()) is None), len(lines))
    return "".join(lines[:count])


def _changed(text: str, change: Callable[[str, list[str]], list[str]]) -> str:
    return "".join(
        line for keyword, lines in _instructions(text) for line in (change(keyword, lines) if keyword else lines)
    )


def _instructions(text: str) -> Iterator[tuple[str, list[str]]]:
    """The keyword (upper case) and the physical lines of each instruction; an empty keyword for lines between them."""
    lines = text.splitlines(keepends=True)
    escape, at = _escape(lines), 0
    while at < len(lines):
        match = _INSTRUCTION.match(lines[at])
        if match is None or not lines[at].strip() or lines[at].lstrip().startswith("#"):
            yield "", [lines[at]]
            at += 1
            continue
        end = _end(lines, at, escape)
        keyword = match[2].upper()
        if keyword in _WITH_HEREDOCS:
            for dashed, _, word in _HEREDOC.findall("".join(lines[at:end])):
                end = _after(lines, end, word, tabs=bool(dashed))
        yield keyword, lines[at:end]
        at = end


def _escape(lines: Sequence[str]) -> str:
    """The character that continues a line, from the parser directives at the top."""
    for line in lines:
        directive = _DIRECTIVE.match(line.strip())
        if directive is None:
            break
        if directive[1].lower() == "escape":
            return directive[2]
    return "\\"


def _end(lines: Sequence[str], at: int, escape: str) -> int:
    """The line after the instruction that begins at ``at``. Comments and empty lines do not end a continued one."""
    while at < len(lines):
        line = lines[at]
        at += 1
        passed_over = not line.strip() or line.lstrip().startswith("#")
        if not passed_over and not line.rstrip().endswith(escape):
            break
    return at


def _after(lines: Sequence[str], at: int, word: str, *, tabs: bool) -> int:
    """The line after the end of a here-document. One that never ends is left to the builder to refuse."""
    for number in range(at, len(lines)):
        line = lines[number].rstrip("\r\n")
        if (line.lstrip("\t") if tabs else line) == word:
            return number + 1
    return at
