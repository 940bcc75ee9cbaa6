"""The grammar of a pip.conf, line by line. Pure.

It is that of ``configparser.RawConfigParser``, which is what pip reads with.
"""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from deployer.errors import ClientFileError

SECTION = "global"

OPTIONS: Mapping[str, frozenset[str]] = {
    "index-url": frozenset({"index-url", "pypi-url"}),
    "timeout": frozenset({"timeout", "default-timeout"}),
    "trusted-host": frozenset({"trusted-host"}),
    "cert": frozenset({"cert"}),
}
"""The options that are ours to set, each with all names that pip takes for it (pip's ``cli/cmdoptions.py``)."""


class Kind(Enum):
    HEADER = 1
    OPTION = 2
    CONTINUATION = 3
    NOTHING = 4  # blank, or a comment


@dataclass(frozen=True)
class Line:
    raw: str  # with its line end
    kind: Kind
    section: str
    name: str  # the option that it starts or continues, as the parser knows it

    def sets(self, option: str) -> bool:
        """Whether it is a part of a setting of ``option`` in the section that holds for all of pip's commands."""
        return self.kind in SETTING and self.section == SECTION and normalize(self.name) in OPTIONS[option]


SETTING = (Kind.OPTION, Kind.CONTINUATION)
_LINE_END = re.compile(r"\r\n|\r|\n")
_HEAD = re.compile(r"\A[^=:]*[=:]\s*")


def normalize(name: str) -> str:
    """An option's name as pip compares it (``configuration.py``, ``_normalize_name``)."""
    return name.lower().replace("_", "-").removeprefix("--")


def parse(text: str) -> dict[str, dict[str, str]]:
    """Parse sections, keys and values as pip does. Raises ClientFileError where pip would fail."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_file(io.StringIO(text, newline=None))
    except configparser.Error as error:
        # The parser's own message quotes the line, which may hold a password.
        raise ClientFileError(
            f"not readable as pip.conf{_where(error)}: {_REASONS.get(type(error), 'not a setting')}",
            hint="correct it by hand: pip can't read it, either",
        ) from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


_REASONS: Mapping[type[configparser.Error], str] = {
    configparser.MissingSectionHeaderError: "a line before the first [section], or a byte order mark",
    configparser.DuplicateSectionError: "a duplicate section",
    configparser.DuplicateOptionError: "a duplicate key",
}


def _where(error: configparser.Error) -> str:
    problems = getattr(error, "errors", None)
    number = problems[0][0] if problems else getattr(error, "lineno", None)
    return f", line {number}" if number else ""


def scan(text: str) -> list[Line]:
    """The lines of ``text``, each with the meaning that ``RawConfigParser._read`` gives it."""
    lines = []
    section = name = ""
    level = 0
    for raw in io.StringIO(text, newline=""):
        content = raw.strip()
        if not content or content[0] in "#;":
            kind = Kind.NOTHING
        elif name and len(indent(raw)) > level:
            kind = Kind.CONTINUATION
        else:
            level = len(indent(raw))
            if header := configparser.RawConfigParser.SECTCRE.match(content):
                kind, section, name = Kind.HEADER, header["header"], ""
            else:
                option = configparser.RawConfigParser.OPTCRE.match(content)
                kind, name = Kind.OPTION, option["option"].rstrip().lower() if option else ""
        lines.append(Line(raw, kind, section, name))
    return lines


def indent(raw: str) -> str:
    return raw[: len(raw) - len(raw.lstrip())]


def _split(raw: str) -> tuple[str, str]:
    """A line without its end, and the end."""
    end = first_end(raw)
    return raw.removesuffix(end), end


def first_end(text: str) -> str:
    found = _LINE_END.search(text)
    return found[0] if found else ""


def cut(raw: str) -> tuple[str, str, str]:
    """The line of an option: its name up to where the value starts, the value, the line's end."""
    body, end = _split(raw)
    value = _HEAD.sub("", body)
    return body[: len(body) - len(value)], value, end


def join(lines: Iterable[str], *, like: str) -> str:
    """The lines as one text that ends in a line end exactly when ``like`` does."""
    rows = list(lines)
    for at, raw in enumerate(rows[:-1]):
        if not _split(raw)[1]:
            rows[at] = raw + (first_end(like) or "\n")
    if rows and like and not like.endswith(("\n", "\r")):
        rows[-1] = _split(rows[-1])[0]
        while len(rows) > 1 and not rows[-1]:  # a blank line is nothing but its end
            rows.pop()
            rows[-1] = _split(rows[-1])[0]
    return "".join(rows)


def values_of(text: str, option: str) -> set[str]:
    section = parse(text).get(SECTION, {})
    return {value for name, value in section.items() if normalize(name) in OPTIONS[option]}
