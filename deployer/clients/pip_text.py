"""The text of a pip.conf: set our keys, take them back, and leave every other byte alone. Pure.

This is done on lines, by the grammar of ``configparser.RawConfigParser`` (which is what pip reads with), and every
result is parsed again and compared before it is handed out. ConfigUpdater was tried first: it writes LF into files
of CRLF lines, reads a file of CR lines as one line, and adds a second key where pip's two spellings of one key
(``index_url``, ``index-url``) meet.
"""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from deployer.errors import ClientFileError

SECTION = "global"
Values = Mapping[str, str]

OPTIONS: Mapping[str, frozenset[str]] = {
    "index-url": frozenset({"index-url", "pypi-url"}),
    "timeout": frozenset({"timeout", "default-timeout"}),
    "trusted-host": frozenset({"trusted-host"}),
}
"""The options that are ours to set, each with all names that pip takes for it (pip's ``cli/cmdoptions.py``)."""


class _Kind(Enum):
    HEADER = 1
    OPTION = 2
    CONTINUATION = 3
    NOTHING = 4  # blank, or a comment


@dataclass(frozen=True)
class _Line:
    raw: str  # with its line end
    kind: _Kind
    section: str
    name: str  # the option that it starts or continues, as the parser knows it

    def sets(self, option: str) -> bool:
        """Whether it is a part of a setting of ``option`` in the section that holds for all of pip's commands."""
        return self.kind in _SETTING and self.section == SECTION and normalize(self.name) in OPTIONS[option]


_SETTING = (_Kind.OPTION, _Kind.CONTINUATION)
_LINE_END = re.compile(r"\r\n|\r|\n")
_HEAD = re.compile(r"\A[^=:]*[=:]\s*")


def normalize(name: str) -> str:
    """An option's name as pip compares it (``configuration.py``, ``_normalize_name``)."""
    return name.lower().replace("_", "-").removeprefix("--")


def parse(text: str) -> dict[str, dict[str, str]]:
    """Sections, keys and values as pip's parser sees them. Raises ClientFileError when it would refuse the text."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_file(io.StringIO(text, newline=None))
    except configparser.Error as error:
        # The parser's own message quotes the line, and a line may hold a password.
        raise ClientFileError(
            f"not readable as pip.conf{_where(error)}: {_REASONS.get(type(error), 'not a setting')}",
            hint="correct it by hand; pip itself stops at it as well",
        ) from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


_REASONS: Mapping[type[configparser.Error], str] = {
    configparser.MissingSectionHeaderError: "a line before the first [section], or a byte order mark",
    configparser.DuplicateSectionError: "a section that is there twice",
    configparser.DuplicateOptionError: "a key that is there twice",
}


def _where(error: configparser.Error) -> str:
    problems = getattr(error, "errors", None)
    number = problems[0][0] if problems else getattr(error, "lineno", None)
    return f", line {number}" if number else ""


MAX_BYTES = 1 << 18


def decode(raw: bytes) -> str:
    """The text of a file. Raises ClientFileError with the place of the first byte that is not UTF-8."""
    if len(raw) > MAX_BYTES:
        raise ClientFileError(f"larger than {MAX_BYTES} bytes", hint="look at it yourself")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ClientFileError(
            f"not UTF-8 at byte {error.start}", hint="convert it to UTF-8 by hand; it was left as it is"
        ) from None


def merge(text: str, values: Values) -> str:
    """``text`` with ``values`` set in its ``[global]`` section and nothing else changed.

    A key that is there keeps its place and spelling; a list of trusted hosts gets one more. Raises ClientFileError
    when pip could not read the text, when a value could not stand on one line, or when setting it would change what
    another key means.
    """
    _check(values)
    before = parse(text)
    for option, value in values.items():
        text = _with(text, option, value)
    if parse(text) != _expected(before, values):
        raise ClientFileError(
            "its settings can't be changed without changing others (look at its [DEFAULT] section)",
            hint="set index-url and timeout in its [global] section by hand",
        )
    return text


def unmerge(text: str, *, original: str, written: Collection[Values]) -> tuple[str, tuple[str, ...]]:
    """``text`` with our keys back at what they were in ``original``, and the options that were left alone.

    ``written``: all that deployer ever set here. Left alone is an option that has a value which is not in there:
    somebody else chose it since. Raises ClientFileError as :func:`merge` does.
    """
    if any(text == merge(original, values) for values in written):
        return original, ()
    before, former = parse(text), _scan(original)
    kept = []
    for option in OPTIONS:
        ours = {values[option] for values in written if option in values}
        if option == "trusted-host":
            text = _without_hosts(text, ours, former)
        elif ours and _values(text, option) - ours:
            kept.append(option)
        elif ours:
            text = _restored(text, option, former)
    text = _without_empty_section(text, former)
    if _others(parse(text)) != _others(before):
        raise ClientFileError("our keys can't be removed without changing others", hint="edit it by hand")
    return text, tuple(kept)


def _check(values: Values) -> None:
    for option, value in values.items():
        # A line end in a value would begin another setting: an injection.
        if not value or not value.isprintable() or any(character.isspace() for character in value):
            raise ClientFileError(
                f"the value for {option} is empty or has a blank or a control character", hint="correct the profile"
            )


def _expected(before: Mapping[str, Values], values: Values) -> dict[str, dict[str, str]]:
    result = {section: dict(items) for section, items in before.items()}
    section = result.setdefault(SECTION, {})
    for option, value in values.items():
        names = [name for name in section if normalize(name) in OPTIONS[option]] or [option]
        for name in names:
            section[name] = _joined(option, section.get(name, ""), value)
    return result


def _joined(option: str, former: str, value: str) -> str:
    """What the option becomes: of a list, all that was in it and the value."""
    if option != "trusted-host" or not former:
        return value
    if trusts(former, value):
        return former
    return f"{value}\n{former[1:]}" if former.startswith("\n") else f"{value} {former}"


def trusts(hosts: str, host: str) -> bool:
    """Whether pip's list ``hosts`` covers ``host`` (``name`` or ``name:port``): an entry without port covers all."""
    return not {host, host.rpartition(":")[0] or host}.isdisjoint(hosts.split())


def _scan(text: str) -> list[_Line]:
    """The lines of ``text``, each with the meaning that ``RawConfigParser._read`` gives it."""
    lines = []
    section = name = ""
    level = 0
    for raw in io.StringIO(text, newline=""):
        content = raw.strip()
        if not content or content[0] in "#;":
            kind = _Kind.NOTHING
        elif name and len(_indent(raw)) > level:
            kind = _Kind.CONTINUATION
        else:
            level = len(_indent(raw))
            if header := configparser.RawConfigParser.SECTCRE.match(content):
                kind, section, name = _Kind.HEADER, header["header"], ""
            else:
                option = configparser.RawConfigParser.OPTCRE.match(content)
                kind, name = _Kind.OPTION, option["option"].rstrip().lower() if option else ""
        lines.append(_Line(raw, kind, section, name))
    return lines


def _indent(raw: str) -> str:
    return raw[: len(raw) - len(raw.lstrip())]


def _split(raw: str) -> tuple[str, str]:
    """A line without its end, and the end."""
    end = _first_end(raw)
    return raw.removesuffix(end), end


def _first_end(text: str) -> str:
    found = _LINE_END.search(text)
    return found[0] if found else ""


def _cut(raw: str) -> tuple[str, str, str]:
    """The line of an option: its name up to where the value starts, the value, the line's end."""
    body, end = _split(raw)
    value = _HEAD.sub("", body)
    return body[: len(body) - len(value)], value, end


def _join(lines: Iterable[str], *, like: str) -> str:
    """The lines as one text that ends in a line end exactly when ``like`` does."""
    rows = list(lines)
    for at, raw in enumerate(rows[:-1]):
        if not _split(raw)[1]:
            rows[at] = raw + (_first_end(like) or "\n")
    if rows and like and not like.endswith(("\n", "\r")):
        rows[-1] = _split(rows[-1])[0]
        while len(rows) > 1 and not rows[-1]:  # a blank line is nothing but its end
            rows.pop()
            rows[-1] = _split(rows[-1])[0]
    return "".join(rows)


def _with(text: str, option: str, value: str) -> str:
    lines = _scan(text)
    if not any(line.sets(option) for line in lines):
        return _inserted(lines, f"{option} = {value}", like=text)
    rows = []
    for line in lines:
        if not line.sets(option):
            rows.append(line.raw)
        elif option == "trusted-host":
            rows.append(_with_host(line, value, _values(text, option)))
        elif line.kind is _Kind.OPTION:
            rows.append(_with_value(line.raw, value))
    return _join(rows, like=text)


def _with_value(raw: str, value: str) -> str:
    head, former, end = _cut(raw)
    return raw if former.strip() == value else head + value + end


def _with_host(line: _Line, host: str, lists: Collection[str]) -> str:
    if line.kind is not _Kind.OPTION or all(trusts(hosts, host) for hosts in lists):
        return line.raw
    head, former, end = _cut(line.raw)
    return f"{head}{host} {former}".rstrip() + end


def _inserted(lines: list[_Line], body: str, *, like: str) -> str:
    headers = [at for at, line in enumerate(lines) if line.kind is _Kind.HEADER and line.section == SECTION]
    if not headers:
        text = _with_section(like)
        return _inserted(_scan(text), body, like=text)
    options = [at for at, line in enumerate(lines) if line.kind in _SETTING and line.section == SECTION]
    # With the indentation of its neighbour, so that neither becomes a continuation of the other.
    if options:
        after = options[-1]
        model = next(lines[at].raw for at in reversed(options) if lines[at].kind is _Kind.OPTION)
    else:
        after = headers[0]
        model = next((line.raw for line in lines[after + 1 :] if line.kind is not _Kind.NOTHING), "")
    end = _first_end(lines[after].raw) or _first_end(like) or "\n"
    rows = [line.raw for line in lines]
    rows.insert(after + 1, _indent(model) + body + end)
    return _join(rows, like=like)


def _with_section(text: str) -> str:
    lines = [line.raw for line in _scan(text)]
    end = _first_end(text) or "\n"
    gap = [end] if lines and lines[-1].strip() else []
    return _join([*lines, *gap, f"[{SECTION}]{end}"], like=text)


def _values(text: str, option: str) -> set[str]:
    section = parse(text).get(SECTION, {})
    return {value for name, value in section.items() if normalize(name) in OPTIONS[option]}


def _others(sections: Mapping[str, Values]) -> dict[str, dict[str, str]]:
    """All settings but those that are ours to set; sections that are then empty left out."""
    ours = frozenset().union(*OPTIONS.values())
    kept = {
        section: {name: value for name, value in items.items() if section != SECTION or normalize(name) not in ours}
        for section, items in sections.items()
    }
    return {section: items for section, items in kept.items() if items}


def _restored(text: str, option: str, former: list[_Line]) -> str:
    """``text`` with the lines that set ``option`` as they are in ``former``; without them if it had none."""
    rows = []
    for line in _scan(text):
        if not line.sets(option):
            rows.append(line.raw)
        elif line.kind is _Kind.OPTION:
            rows.extend(old.raw for old in former if old.sets(option) and old.name == line.name)
    return _join(rows, like=text)


def _without_hosts(text: str, hosts: Collection[str], former: list[_Line]) -> str:
    """``text`` without the trusted ``hosts``, save those that ``former`` trusted already."""
    known = [line.raw for line in former if line.sets("trusted-host")]
    doomed = set(hosts) - {word for raw in known for word in raw.split()}
    rows = []
    for line in _scan(text):
        raw = line.raw
        if doomed and line.sets("trusted-host"):
            raw = _without_words(raw, doomed)
        if known or raw == line.raw or _cut(raw)[1].strip():
            rows.append(raw)
    return _join(rows, like=text)


def _without_words(raw: str, words: Collection[str]) -> str:
    for word in words:
        raw = re.sub(rf"(?<=[\s=:]){re.escape(word)}(?:[ \t]|(?=\s)|\Z)", "", raw, count=1)
    return raw


def _without_empty_section(text: str, former: list[_Line]) -> str:
    """``text`` without the ``[global]`` header that deployer added, when nothing is left under it."""
    lines = _scan(text)
    own = [at for at, line in enumerate(lines) if line.section == SECTION]
    added = not any(line.kind is _Kind.HEADER and line.section == SECTION for line in former)
    if not added or any(lines[at].raw.strip() for at in own[1:]):
        return text
    rows = [line.raw for at, line in enumerate(lines) if at not in own]
    gap = own[0] - 1 if own else -1
    if former and former[-1].raw.strip() and gap >= 0 and not rows[gap].strip():
        del rows[gap]
    return _join(rows, like=text)
